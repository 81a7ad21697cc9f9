"""What a host reads and writes of the jobs that it runs. Methods raise JobsUnavailable."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from publisher.lazy import dataclass
from publisher.service.jobs.database import EVENTS, JOBS, available, now
from publisher.service.jobs.model import JobState


@dataclass(frozen=True, slots=True)
class Attempt:
    """The one attempt to run a job that may write about it.

    A host that was thought lost may still run an earlier attempt: what it writes is ignored.
    """

    job_id: str
    host: str
    number: int


class WorkerStore:
    """The jobs in the database of `engine`, for the host named `host`."""

    def __init__(self, engine: sa.Engine, host: str) -> None:
        self._engine = engine
        self._host = host

    def begin(self, job_id: str) -> Attempt | None:
        """Record that this host runs the job; None if it has ended, or is cancelled."""
        open_states = JOBS.c.state.in_([JobState.QUEUED, JobState.RUNNING])
        chosen = sa.update(JOBS).where(JOBS.c.id == job_id, open_states)
        start = chosen.where(JOBS.c.cancelled_by.is_(None)).values(
            state=str(JobState.RUNNING),
            started=sa.func.coalesce(JOBS.c.started, now()),
            host=self._host,
            attempt=JOBS.c.attempt + 1,
        )
        cancel = chosen.where(JOBS.c.cancelled_by.is_not(None)).values(
            state=str(JobState.CANCELLED), ended=now(), error=_CANCELLED
        )
        with available(), self._engine.begin() as connection:
            if connection.execute(start).rowcount:
                query = sa.select(JOBS.c.attempt).where(JOBS.c.id == job_id)
                number = connection.execute(query).scalar_one()
                return Attempt(job_id, self._host, number)
            connection.execute(cancel)
        return None

    def last_event(self, attempt: Attempt) -> int:
        """Return the number of the last event of the job, 0 if it has none."""
        query = sa.select(sa.func.max(EVENTS.c.number)).where(EVENTS.c.job == attempt.job_id)
        with available(), self._engine.connect() as connection:
            return connection.execute(query).scalar() or 0

    def add_events(
        self, attempt: Attempt, after: int, values: Sequence[Mapping[str, object]]
    ) -> bool:
        """Store events, numbered from `after` + 1; return False if the attempt is not current."""
        rows = [
            {
                "job": attempt.job_id,
                "number": number,
                "attempt": attempt.number,
                "value": json.dumps(value),
            }
            for number, value in enumerate(values, after + 1)
        ]
        try:
            with available(), self._engine.begin() as connection:
                # Locked: no other attempt begins, and counts the events, before these are stored.
                if not connection.execute(_current(attempt).with_for_update()).first():
                    return False
                connection.execute(sa.insert(EVENTS), rows)
        except sa.exc.IntegrityError:
            # Stored by a transaction whose end was not reported, as the connection was lost.
            return self.last_event(attempt) >= after + len(rows)
        return True

    def is_cancelled(self, attempt: Attempt) -> bool:
        """Return whether the command is to be ended: on request, or as another attempt runs."""
        with available(), self._engine.connect() as connection:
            row = connection.execute(_current(attempt)).first()
        return row is None or row[0] is not None

    def finish(self, attempt: Attempt, exit_code: int | None, error: str, *, ended: bool) -> None:
        """Record how the command ended; nothing if the attempt is not current.

        `ended` is whether the command was ended on request.
        """
        cancelled = ended and error == ""
        state = JobState.SUCCEEDED if exit_code == 0 and not error else JobState.FAILED
        change = (
            sa.update(JOBS)
            .where(*_conditions(attempt))
            .values(
                state=str(JobState.CANCELLED if cancelled else state),
                ended=now(),
                exit_code=exit_code,
                error=_CANCELLED if cancelled else error,
            )
        )
        with available(), self._engine.begin() as connection:
            connection.execute(change)


_CANCELLED = sa.literal("cancelled by ") + sa.func.coalesce(JOBS.c.cancelled_by, "the service")


def _conditions(attempt: Attempt) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        JOBS.c.id == attempt.job_id,
        JOBS.c.host == attempt.host,
        JOBS.c.attempt == attempt.number,
        JOBS.c.state == str(JobState.RUNNING),
    )


def _current(attempt: Attempt) -> sa.Select[tuple[str | None]]:
    return sa.select(JOBS.c.cancelled_by).where(*_conditions(attempt))
