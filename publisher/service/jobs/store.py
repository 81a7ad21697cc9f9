"""`Jobs` on the tables of the database; a new job is put in the queue in the same transaction."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient, WorkflowSerializationFormat
from dbos._error import DBOSException

from publisher.service.jobs.database import EVENTS, IS_QUEUED, JOBS, KEYS, available, digest, now
from publisher.service.jobs.model import (
    MOST_PER_PAGE,
    Job,
    JobEnded,
    JobEvent,
    JobFilter,
    JobKind,
    JobPage,
    JobRequest,
    JobState,
    KeyReused,
    NoSuchJob,
    QueueFull,
    Submission,
)

APPLICATION = "publisher"
QUEUE = "publisher-jobs"
WORKFLOW = "publisher-job"
VERSION = "1"
"""What DBOS calls the version of the application: hosts run only jobs with their own version. It
changes only if a job that an earlier release queued cannot be run by this one."""

_TRIES = 5


class StoredJobs:
    """The jobs in the database of `engine`; see the protocol `Jobs`.

    `queued` is how many jobs may wait.
    """

    def __init__(self, engine: sa.Engine, queued: int) -> None:
        self._engine = engine
        self._queued = queued
        self._lanes: Mapping[str, int] = {}
        self._limited: frozenset[str] = frozenset()
        self._client = DBOSClient(
            system_database_engine=engine,
            lazy=True,
            retry_connection_errors=False,
            application_name=APPLICATION,
        )

    def allow_lanes(self, lanes: Mapping[str, int], limited: Collection[str] = ()) -> None:
        """Change how many ingests of each repository run at the same time; 1 if not named.

        Those of each of the `limited` projects run one after the other: two at the same time could
        together exceed its quota.
        """
        self._lanes = lanes
        self._limited = frozenset(limited)

    def _lane(self, request: JobRequest) -> str:
        """Return the partition of the queue of a job, of which one job runs at a time.

        Ingests of the same list, or of the same project with a quota, are in the same one.
        """
        lanes = self._lanes.get(request.repository, 1)
        if lanes == 1 or not request.kind.is_ingest:
            return request.repository
        name = request.project if request.project in self._limited else request.subject
        lane = int(digest(name)[:8], 16) % lanes
        return f"{request.repository}/{lane}" if lane else request.repository

    def allow_queued(self, queued: int) -> None:
        """Change the limit of jobs that wait."""
        self._queued = queued

    def submit(self, request: JobRequest, once: str = "") -> Submission:
        """Queue a job, or return the queued one that does the same; raise QueueFull, KeyReused."""
        work = work_of(request)
        key = digest(once) if once else ""
        for _ in range(_TRIES):
            with available():
                found = self._known(work, key)
                if found is not None:
                    return Submission(found, is_new=False)
                try:
                    return Submission(self._insert(request, work, key), is_new=True)
                except sa.exc.IntegrityError:
                    continue  # queued by another thread or host; or that one has started meanwhile
        with available():
            return Submission(self._insert(request, work, key), is_new=True)

    def _known(self, work: str, key: str) -> Job | None:
        """Return the job of the request with this key, or the queued one that does the same."""
        if key:
            query = sa.select(KEYS.c.work, KEYS.c.job).where(KEYS.c.key == key)
            with self._engine.connect() as connection:
                row = connection.execute(query).first()
            if row is not None and row.work != work:
                raise KeyReused(row.job)
            job = None if row is None else self._first(JOBS.c.id == row.job)
            if job is not None:
                return job
        found = self._first(JOBS.c.work == work, IS_QUEUED)
        if found is not None and key:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(KEYS).values(key=key, work=work, job=found.id))
        return found

    def _insert(self, request: JobRequest, work: str, key: str) -> Job:
        created = now()
        row = {
            "id": f"{created:012x}-{secrets.token_hex(6)}",  # sorted by time
            "work": work,
            "kind": str(request.kind),
            "repository": request.repository,
            "subject": request.subject,
            "arguments": json.dumps(request.arguments),
            "requested_by": request.requested_by,
            "reason": request.reason,
            "state": str(JobState.QUEUED),
            "created": created,
            "started": None,
            "ended": None,
            "host": "",
            "exit_code": None,
            "error": "",
            "attempt": 0,
            "requested_from": request.requested_from,
            "project": request.project,
        }
        waiting = sa.select(sa.func.count()).where(IS_QUEUED)
        with self._engine.begin() as connection:
            connection.execute(sa.insert(JOBS).values(row))
            if key:
                connection.execute(sa.insert(KEYS).values(key=key, work=work, job=row["id"]))
            if connection.execute(waiting).scalar_one() > self._queued:
                raise QueueFull(self._queued)
            self._client.enqueue_in_transaction(
                connection,
                {
                    "workflow_name": WORKFLOW,
                    "queue_name": QUEUE,
                    "workflow_id": str(row["id"]),
                    "app_version": VERSION,
                    "queue_partition_key": self._lane(request),
                    "serialization_type": WorkflowSerializationFormat.PORTABLE,
                },
                row["id"],
            )
        return _job(row)

    def get(self, job_id: str) -> Job:
        """Return the job; raise NoSuchJob."""
        with available():
            found = self._first(JOBS.c.id == job_id)
        if found is None:
            raise NoSuchJob(job_id)
        return found

    def list(
        self,
        chosen: JobFilter = JobFilter(),  # noqa: B008 - it is frozen
        *,
        after: str = "",
        limit: int = 50,
    ) -> JobPage:
        """Return the next jobs, newest first."""
        limit = max(1, min(limit, MOST_PER_PAGE))
        query = sa.select(JOBS).order_by(JOBS.c.id.desc()).limit(limit + 1)
        if chosen.states == {JobState.QUEUED}:
            query = query.where(IS_QUEUED)
        for column, values in (
            (JOBS.c.repository, chosen.repositories),
            (JOBS.c.kind, chosen.kinds),
            (JOBS.c.state, chosen.states),
        ):
            if values:
                query = query.where(column.in_([str(value) for value in values]))
        if chosen.subject:
            query = query.where(JOBS.c.subject == chosen.subject)
        if chosen.projects is not None:
            query = query.where(JOBS.c.project.in_(chosen.projects))
        if after:
            query = query.where(JOBS.c.id < after)
        with available(), self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        jobs = tuple(_job(row) for row in rows[:limit])
        return JobPage(jobs, jobs[-1].id if len(rows) > limit else "")

    def cancel(self, job_id: str, by: str) -> Job:
        """Remove a job from the queue, or end its command in order."""
        unfinished = JOBS.c.state.in_([JobState.QUEUED, JobState.RUNNING])
        mark = sa.update(JOBS).where(JOBS.c.id == job_id, unfinished).values(cancelled_by=by)
        withdraw = (
            sa.update(JOBS)
            .where(JOBS.c.id == job_id, IS_QUEUED)
            .values(state=str(JobState.CANCELLED), ended=now(), error=f"cancelled by {by}")
        )
        with available():
            with self._engine.begin() as connection:
                marked = connection.execute(mark).rowcount
                withdrawn = connection.execute(withdraw).rowcount
            job = self.get(job_id)
            if not marked:
                raise JobEnded(job)
            if withdrawn:
                self._remove_from_queue([job_id])
        return job

    def _remove_from_queue(self, job_ids: Sequence[str]) -> None:
        """Remove what a host would otherwise take, only to see that it is cancelled."""
        try:
            self._client.cancel_workflows(list(job_ids))
        except DBOSException:  # a host has taken it just now
            return

    def last_event(self, job_id: str) -> int:
        """Return the number of the last event of a job, 0 if it has none."""
        query = sa.select(sa.func.max(EVENTS.c.number)).where(EVENTS.c.job == job_id)
        with available(), self._engine.connect() as connection:
            return connection.execute(query).scalar() or 0

    def events(self, job_id: str, after: int = 0, limit: int = MOST_PER_PAGE) -> Sequence[JobEvent]:
        """Return the next events; raise NoSuchJob."""
        query = (
            sa.select(EVENTS)
            .where(EVENTS.c.job == job_id, EVENTS.c.number > min(max(after, 0), 2**31 - 1))
            .order_by(EVENTS.c.number)
            .limit(max(1, min(limit, MOST_PER_PAGE)))
        )
        with available(), self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        if not rows:
            self.get(job_id)
        return [JobEvent(row["number"], row["attempt"], json.loads(row["value"])) for row in rows]

    def delete(self, job_ids: Sequence[str]) -> None:
        """Delete jobs that have ended, with their events."""
        with available():
            with self._engine.begin() as connection:
                connection.execute(sa.delete(EVENTS).where(EVENTS.c.job.in_(job_ids)))
                connection.execute(sa.delete(KEYS).where(KEYS.c.job.in_(job_ids)))
                connection.execute(sa.delete(JOBS).where(JOBS.c.id.in_(job_ids)))
            self._client.delete_workflows(list(job_ids))

    def _first(self, *conditions: sa.ColumnElement[bool]) -> Job | None:
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(JOBS).where(*conditions)).mappings().first()
        return None if row is None else _job(row)


def work_of(request: JobRequest) -> str:
    """Return what the rows of the same work have in common."""
    return digest(json.dumps(request.key))


def _job(row: Any) -> Job:
    """Return the job of a row."""
    request = JobRequest(
        kind=JobKind(row["kind"]),
        repository=row["repository"],
        subject=row["subject"],
        arguments=tuple(json.loads(row["arguments"])),
        requested_by=row["requested_by"],
        reason=row["reason"],
        requested_from=row["requested_from"],
        project=row["project"],
    )
    return Job(
        id=row["id"],
        request=request,
        state=JobState(row["state"]),
        created=_time(row["created"]),
        started=None if row["started"] is None else _time(row["started"]),
        ended=None if row["ended"] is None else _time(row["ended"]),
        host=row["host"],
        exit_code=row["exit_code"],
        error=row["error"],
        attempt=row["attempt"],
    )


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
