"""Schedules become jobs: each time once, whichever hosts are up. Times are in UTC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import sqlalchemy as sa
from croniter import croniter

from publisher.lazy import dataclass
from publisher.service.configuration import ServiceConfiguration
from publisher.service.jobs.database import TICKS, available
from publisher.service.jobs.model import JobKind, JobRequest, Jobs

_FUTURE = 3600 * 1000
"""By how many milliseconds clocks of hosts may differ."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job that is requested at the times of a cron expression."""

    expression: str
    request: JobRequest

    @property
    def name(self) -> str:
        """The name under which its last time is stored."""
        return "/".join((self.request.repository, str(self.request.kind), self.request.subject))

    def following(self, moment: datetime) -> datetime:
        """Return the next time after `moment`."""
        found = croniter(self.expression, moment).get_next(datetime)
        assert isinstance(found, datetime)
        return found

    def last(self, moment: datetime) -> datetime:
        """Return the last time that is not after `moment`."""
        minute = moment.replace(second=0, microsecond=0)
        if croniter.match(self.expression, minute):
            return minute
        found = croniter(self.expression, moment).get_prev(datetime)
        assert isinstance(found, datetime)
        return found


def schedules(configuration: ServiceConfiguration) -> Iterator[Schedule]:
    """Yield the schedules of the configuration."""
    for repository in configuration.repositories:
        for each in repository.lists:
            if each.schedule:
                request = JobRequest(
                    JobKind.INGEST_LIST, repository.name, each.name, project=each.project
                )
                yield _schedule(each.schedule, request)
        for kind, expression in repository.schedules.items():
            yield _schedule(expression, JobRequest(kind, repository.name))


def _schedule(expression: str, request: JobRequest) -> Schedule:
    reason = f"schedule {expression}"
    return Schedule(expression, replace(request, requested_by="schedule", reason=reason))


class Scheduler:
    """Submits the jobs of schedules that are due.

    A time that passed while no host was up is not made up for: the next one does the same work.
    """

    def __init__(self, engine: sa.Engine, jobs: Jobs) -> None:
        self._engine = engine
        self._jobs = jobs
        self._looked: datetime | None = None

    def submit_due(self, configuration: ServiceConfiguration, moment: datetime) -> None:
        """Submit what became due since the last call; raise JobsUnavailable or QueueFull.

        After an error, the same call may be repeated.
        """
        since, until = self._looked, moment.astimezone(UTC)
        if since is not None:
            for each in schedules(configuration):
                due = each.last(until)
                if due > since and self._is_first(each.name, due):
                    self._jobs.submit(each.request)
        self._looked = until

    def _is_first(self, name: str, due: datetime) -> bool:
        """Return whether no host has submitted this time yet, and record that this one does."""
        last = int(due.timestamp() * 1000)
        # A time far in the future is that of a clock that was wrong.
        is_older = sa.or_(TICKS.c.last < last, TICKS.c.last > last + _FUTURE)
        change = sa.update(TICKS).where(TICKS.c.name == name, is_older)
        try:
            with available(), self._engine.begin() as connection:
                if connection.execute(change.values(last=last)).rowcount:
                    return True
                found = connection.execute(sa.select(TICKS.c.last).where(TICKS.c.name == name))
                if found.first() is not None:
                    return False
                connection.execute(sa.insert(TICKS).values(name=name, last=last))
                return True
        except sa.exc.IntegrityError:  # another host inserted the same row
            return False
