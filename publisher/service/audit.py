"""The audit log: every request that changes something, with its sender and its result."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

import sqlalchemy as sa

from publisher.lazy import dataclass
from publisher.service.jobs.database import AUDIT, available, now

MOST = 100_000
"""How many entries are kept."""

_LONGEST = 500


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One request that changed something, or was refused.

    Attributes:
        id: Its identifier, sorted by time.
        time: When it was answered.
        sender: The name of its sender, or "" for a webhook.
        address: The network address that it came from.
        method: The HTTP method.
        path: What it was about.
        status: The HTTP status of the answer.
    """

    id: str
    time: datetime
    sender: str
    address: str
    method: str
    path: str
    status: int


class Audit:
    """The audit log in the database of `engine`. Methods raise JobsUnavailable."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def add(self, sender: str, address: str, method: str, path: str, status: int) -> None:
        """Add an entry."""
        moment = now()
        row = {
            "id": f"{moment:012x}-{secrets.token_hex(6)}",
            "time": moment,
            "sender": sender[:_LONGEST],
            "address": address[:_LONGEST],
            "method": method[:_LONGEST],
            "path": path[:_LONGEST],
            "status": status,
        }
        with available(), self._engine.begin() as connection:
            connection.execute(sa.insert(AUDIT).values(row))

    def list(self, after: str = "", limit: int = 100) -> list[AuditEntry]:
        """Return the next entries, the newest first; `after` is the `id` of the last one known."""
        query = sa.select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)
        if after:
            query = query.where(AUDIT.c.id < after)
        with available(), self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            AuditEntry(
                row["id"],
                datetime.fromtimestamp(row["time"] / 1000, UTC),
                row["sender"],
                row["address"],
                row["method"],
                row["path"],
                row["status"],
            )
            for row in rows
        ]

    def remove_old(self, most: int = MOST) -> None:
        """Remove the oldest entries, so that `most` remain."""
        newest = sa.select(AUDIT.c.id).order_by(AUDIT.c.id.desc()).offset(most).limit(1)
        with available(), self._engine.begin() as connection:
            last = connection.execute(newest).scalar()
            if last is not None:
                connection.execute(sa.delete(AUDIT).where(AUDIT.c.id <= last))
