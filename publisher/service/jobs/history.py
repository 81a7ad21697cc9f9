"""Old jobs are removed: the history has a bound."""

from __future__ import annotations

import sqlalchemy as sa

from publisher.service.configuration import History
from publisher.service.jobs.database import JOBS, available, now
from publisher.service.jobs.model import JobState
from publisher.service.jobs.store import StoredJobs

_AT_ONCE = 200
"""How many jobs one transaction removes."""

_ENDED = JOBS.c.state.in_([str(state) for state in JobState if state.is_final])


def remove_old_jobs(engine: sa.Engine, jobs: StoredJobs, history: History) -> int:
    """Remove jobs that ended and are out of bounds; return how many. Raises JobsUnavailable."""
    removed = 0
    while found := _too_many(engine, history) or _too_old(engine, history):
        jobs.delete(found)
        removed += len(found)
    return removed


def _too_old(engine: sa.Engine, history: History) -> list[str]:
    before = now() - int(history.age.total_seconds() * 1000)
    query = sa.select(JOBS.c.id).where(_ENDED, JOBS.c.ended < before).limit(_AT_ONCE)
    with available(), engine.connect() as connection:
        return list(connection.execute(query).scalars())


def _too_many(engine: sa.Engine, history: History) -> list[str]:
    count = sa.select(sa.func.count()).where(_ENDED)
    with available(), engine.connect() as connection:
        excess = connection.execute(count).scalar_one() - history.jobs
        if excess <= 0:
            return []
        oldest = sa.select(JOBS.c.id).where(_ENDED).order_by(JOBS.c.id)
        return list(connection.execute(oldest.limit(min(excess, _AT_ONCE))).scalars())
