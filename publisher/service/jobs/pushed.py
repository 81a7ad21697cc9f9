"""Jobs for images that were pushed: those of one list that wait are joined into one job."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace

import sqlalchemy as sa

from publisher.service.jobs.command import ONLY, RETRY_FAILED
from publisher.service.jobs.database import JOBS, available
from publisher.service.jobs.model import Job, JobFilter, JobKind, JobRequest, JobState, Submission
from publisher.service.jobs.store import StoredJobs, work_of

MOST_IMAGES = 200
"""A job for more images is one for the whole list."""

_TRIES = 5


class PushedImages:
    """Queues jobs for pushed images in the database of `engine`, whose jobs are `jobs`."""

    def __init__(self, engine: sa.Engine, jobs: StoredJobs) -> None:
        self._engine = engine
        self._jobs = jobs
        self._lock = threading.Lock()

    def submit(self, request: JobRequest, patterns: Sequence[str]) -> Submission:
        """Queue an ingest of what `patterns` select of a list, or add them to a queued job.

        A queued job of an earlier push gets the patterns as well, so that at most one waits for
        each list, whichever images are pushed: its command reads them when it begins.

        Args:
            request: The ingest of the list, without arguments.
            patterns: As for `publisher ingest --only`, escaped.

        Raises:
            QueueFull: The limit of queued jobs is reached.
            JobsUnavailable: The database cannot be reached.
        """
        options = [ONLY + pattern for pattern in patterns]
        with self._lock:  # else pushes at the same time would each queue a job
            for _ in range(_TRIES):
                queued = self._queued(request)
                if queued is None:
                    break
                joined = _joined(queued.request, options)
                if joined == queued.request or self._replace(queued, joined):
                    return Submission(replace(queued, request=joined), is_new=False)
            return self._jobs.submit(_selecting(request, options))

    def _queued(self, request: JobRequest) -> Job | None:
        chosen = JobFilter(
            repositories=frozenset({request.repository}),
            kinds=frozenset({JobKind.INGEST_LIST}),
            states=frozenset({JobState.QUEUED}),
            subject=request.subject,
        )
        page = self._jobs.list(chosen)
        return next((job for job in page.jobs if _is_alike(job.request, request)), None)

    def _replace(self, queued: Job, joined: JobRequest) -> bool:
        """Change what a queued job does; return False if it has begun, or was changed."""
        change = (
            sa.update(JOBS)
            .where(
                JOBS.c.id == queued.id,
                JOBS.c.state == JobState.QUEUED,
                JOBS.c.arguments == json.dumps(queued.request.arguments),
            )
            .values(arguments=json.dumps(joined.arguments), work=work_of(joined))
        )
        try:
            with available(), self._engine.begin() as connection:
                return bool(connection.execute(change).rowcount)
        except sa.exc.IntegrityError:  # the same work is queued already
            return False


def _is_alike(queued: JobRequest, request: JobRequest) -> bool:
    """Return whether a queued job is one for pushes that the same hook reported, of that list."""
    first, *others = queued.arguments or ("",)
    if first != RETRY_FAILED or not all(each.startswith(ONLY) for each in others):
        return False
    is_of_hook = queued.requested_by == request.requested_by
    return is_of_hook and replace(queued, arguments=()).key == replace(request, arguments=()).key


def _joined(queued: JobRequest, options: Sequence[str]) -> JobRequest:
    """Return a queued job for pushes with further options; one for the whole list needs none."""
    known = queued.arguments[1:]
    return _selecting(queued, (*known, *options)) if known else queued


def _selecting(request: JobRequest, options: Iterable[str]) -> JobRequest:
    """Return the ingest of what the options select, or of the whole list if they are too many."""
    chosen = tuple(dict.fromkeys(options))
    if len(chosen) > MOST_IMAGES:
        chosen = ()
    return replace(request, arguments=(RETRY_FAILED, *chosen))  # may succeed now
