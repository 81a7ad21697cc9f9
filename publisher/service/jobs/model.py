"""Jobs as values, and the protocol of what stores and runs them. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.service.kinds import JobKind as JobKind

MOST_PER_PAGE = 500
"""The most jobs, or events, that one call returns."""


class JobState(enum.StrEnum):
    """Where a job is in its life. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the job will not change any more."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A request to run one command.

    Two requests with the same `key` do the same work.

    Attributes:
        kind: The command.
        repository: The name of a repository in the configuration.
        subject: The name of a wish list in the configuration for INGEST_LIST and PLAN, an image
            reference for INGEST_IMAGE, else "".
        arguments: Further options of the command. Only what the service itself or its
            configuration chose may be here: the command receives them unchanged.
        requested_by: The user, token or schedule that requested it, for people to read.
        requested_from: The address that requested it, "" if it was this service itself.
        reason: Why, for people to read: "schedule */15 * * * *", "webhook harbor".
        project: The project that it belongs to, whose credentials it has; "" for the service.
    """

    kind: JobKind
    repository: str
    subject: str = ""
    arguments: tuple[str, ...] = ()
    requested_by: str = ""
    reason: str = ""
    requested_from: str = ""
    project: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What requests for the same work have in common."""
        return (str(self.kind), self.repository, self.project, self.subject, *self.arguments)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is at one moment.

    `attempt` counts from 1 when the job runs, and is larger if a host was lost while it ran it.
    `exit_code` is that of the command: a failed job without one could not be started, or ended by
    a signal; `error` contains why. `host` is the host that ran it last, "" before.
    """

    id: str
    request: JobRequest
    state: JobState
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    host: str = ""
    exit_code: int | None = None
    error: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One line of the output of a job.

    `number` counts from 1 without gaps over all attempts of a job. `value` is a JSON object as
    docs/schemas/event-1.schema.json describes it. Its texts are from outside: they are escaped by
    `errors.printable` before they are shown.
    """

    number: int
    attempt: int
    value: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list; an empty value selects all, except for an empty set of projects."""

    repositories: frozenset[str] = frozenset()
    kinds: frozenset[JobKind] = frozenset()
    states: frozenset[JobState] = frozenset()
    subject: str = ""
    projects: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """A part of a list of jobs, newest first; `following` is the `after` of the next one, or ""."""

    jobs: tuple[Job, ...]
    following: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """The answer to a request: the job, and whether it is new. A queued job is not queued twice."""

    job: Job
    is_new: bool


class JobsUnavailable(PublisherError):
    """The database of jobs cannot be reached at the moment; the same call may succeed later."""


class NoSuchJob(PublisherError):
    """No job has this identifier, or it is older than the history."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"cannot find job {job_id}",
            why="no job has this identifier, or it is older than the history",
            hint="list the jobs: /api/v1/jobs",
        )
        self.job_id = job_id


class QueueFull(PublisherError):
    """As many jobs wait as the configuration allows."""

    def __init__(self, allowed: int) -> None:
        super().__init__(
            "cannot queue the job",
            why=f"{allowed} jobs are queued, which is the limit",
            hint="wait until jobs have ended, or raise limits.queued in the configuration",
        )
        self.allowed = allowed


class JobEnded(PublisherError):
    """A job that has ended cannot be cancelled."""

    def __init__(self, job: Job) -> None:
        super().__init__(
            f"cannot cancel job {job.id}",
            why=f"it has ended: {job.state}",
            hint=f"read its log: /api/v1/jobs/{job.id}/events",
        )
        self.job_id = job.id


class CannotRetry(PublisherError):
    """A job that has not failed is not run again."""

    def __init__(self, job: Job) -> None:
        super().__init__(
            f"cannot retry job {job.id}",
            why=f"it is {job.state}, and jobs that failed or were cancelled can be retried",
            hint="queue a new job: POST /api/v1/jobs",
        )
        self.job_id = job.id


class KeyReused(PublisherError):
    """An Idempotency-Key was sent before with another request."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            "cannot queue the job",
            why=f"the Idempotency-Key belongs to another request, which queued job {job_id}",
            hint="use a new Idempotency-Key for each request",
        )
        self.job_id = job_id


class Jobs(Protocol):
    """The jobs of all hosts. Methods block, are safe to call in any thread, and raise
    JobsUnavailable if the database cannot be reached."""

    def submit(self, request: JobRequest, once: str = "") -> Submission:
        """Queue a job, or return the queued one that does the same.

        A running job with the same key does not count: what has changed since it began may need
        another run.

        Args:
            request: What is requested.
            once: A text that identifies this request; the same again returns its job, also if that
                has ended. With "" each request is a new one.

        Raises:
            QueueFull: The limit of queued jobs is reached.
            KeyReused: `once` belongs to a request for other work.
        """

    def get(self, job_id: str) -> Job:
        """Return the job; raise NoSuchJob."""

    def list(
        self,
        chosen: JobFilter = JobFilter(),  # noqa: B008 - it is frozen
        *,
        after: str = "",
        limit: int = 50,
    ) -> JobPage:
        """Return the next `limit` jobs (1 to MOST_PER_PAGE), newest first.

        `after` is `following` of the page before, "" for the first page.
        """

    def cancel(self, job_id: str, by: str) -> Job:
        """Remove a job from the queue, or end its command in order; return the job as it is now.

        The command of a running job ends a moment later. `by` is the user who cancels, for the
        log of the job.

        Raises:
            NoSuchJob: No job has this identifier.
            JobEnded: The job has ended already.
        """

    def last_event(self, job_id: str) -> int:
        """Return the number of the last event of a job, 0 if it has none."""

    def events(self, job_id: str, after: int = 0, limit: int = MOST_PER_PAGE) -> Sequence[JobEvent]:
        """Return the next events with a number larger than `after`; raise NoSuchJob."""
