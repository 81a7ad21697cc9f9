"""Heartbeats of hosts: each counts in the database, and one whose count does not change is lost.

The count is compared with this process' own monotonic clock: clocks of hosts may differ and jump.
While the database cannot be reached, no host is lost.
"""

from __future__ import annotations

import time
from dataclasses import field

import sqlalchemy as sa

from publisher.lazy import dataclass
from publisher.service.jobs.database import HOSTS, available

_LEFT = -1


@dataclass(slots=True)
class _Seen:
    beats: int
    at: float


@dataclass(slots=True)
class Hosts:
    """The hosts in the database of `engine`.

    `host` is the identifier of this one, and `timeout` the seconds after which a host is lost.
    """

    engine: sa.Engine
    host: str
    name: str
    timeout: float
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _last: float | None = None

    def beat(self) -> list[str]:
        """Count on, and return the identifiers of lost hosts; raise JobsUnavailable."""
        with available(), self.engine.begin() as connection:
            count = sa.update(HOSTS).where(HOSTS.c.id == self.host)
            more = count.values(beats=sa.func.abs(HOSTS.c.beats) + 1, name=self.name)
            if not connection.execute(more).rowcount:
                row = {"id": self.host, "name": self.name, "beats": 1}
                connection.execute(sa.insert(HOSTS).values(row))
            rows = connection.execute(sa.select(HOSTS.c.id, HOSTS.c.beats)).all()
        return self._lost({row.id: row.beats for row in rows if row.id != self.host})

    def _lost(self, beats: dict[str, int]) -> list[str]:
        moment = time.monotonic()
        if self._last is None or moment - self._last > self.timeout / 2:
            self._seen.clear()  # the database was away, for other hosts too: all may count again
        self._last = moment
        for host, count in beats.items():
            if host not in self._seen or self._seen[host].beats != count:
                self._seen[host] = _Seen(count, moment)
        return [
            host
            for host, count in beats.items()
            if count == _LEFT or moment - self._seen[host].at > self.timeout
        ]

    def forget(self, host: str) -> None:
        """Remove a host whose jobs were put in the queue again."""
        self._seen.pop(host, None)
        with available(), self.engine.begin() as connection:
            connection.execute(sa.delete(HOSTS).where(HOSTS.c.id == host))

    def leave(self) -> None:
        """Record that this host ends, so that its jobs run elsewhere at once."""
        with available(), self.engine.begin() as connection:
            connection.execute(sa.update(HOSTS).where(HOSTS.c.id == self.host).values(beats=_LEFT))
