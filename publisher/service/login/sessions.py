"""Sessions of users who have logged in. The database has only the hashes of their cookies."""

from __future__ import annotations

import json
import secrets
from datetime import datetime, timedelta

import sqlalchemy as sa

from publisher.service.jobs.database import SESSIONS, available, digest, seconds
from publisher.service.projects import Person

_LENGTH = 43


class Sessions:
    """The sessions in the database of `engine`; methods raise JobsUnavailable."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def begin(self, person: Person, now: datetime, lifetime: timedelta) -> str:
        """Begin a session, and return the value of its cookie, which is not kept."""
        cookie = secrets.token_urlsafe(32)
        value = {"groups": sorted(person.groups), "claims": dict(person.claims)}
        row = {
            "id": digest(cookie),
            "name": person.name,
            "person": json.dumps(value),
            "expires": seconds(now + lifetime),
        }
        with available(), self._engine.begin() as connection:
            connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.expires <= seconds(now)))
            connection.execute(sa.insert(SESSIONS).values(row))
        return cookie

    def find(self, cookie: str, now: datetime) -> Person | None:
        """Return the user of a session; None if it has ended, or never began."""
        if len(cookie) != _LENGTH:
            return None
        chosen = SESSIONS.c.id == digest(cookie), SESSIONS.c.expires > seconds(now)
        with available(), self._engine.connect() as connection:
            row = connection.execute(sa.select(SESSIONS).where(*chosen)).first()
        if row is None:
            return None
        value = json.loads(row.person)
        return Person(row.name, frozenset(value["groups"]), value["claims"])

    def end(self, cookie: str) -> None:
        """End a session."""
        with available(), self._engine.begin() as connection:
            connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.id == digest(cookie)))
