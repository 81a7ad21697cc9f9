"""Tokens that were created by requests or commands. The database has only their hashes."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from publisher.errors import PublisherError, printable
from publisher.lazy import dataclass
from publisher.service.access import Access
from publisher.service.jobs.database import TOKENS, available, digest, seconds
from publisher.service.projects import SERVICE, Grants, Person, grants_of, limited_to
from publisher.service.verbs import Verb
from publisher.times import format_time

PREFIX = "pub_"
"""With which each of these tokens begins, so that programs find those that were published."""

MOST_TOKENS = 10_000
_USED_SECONDS = 3600
_DAYS = 90
_MOST_DAYS = 366


class NoSuchToken(PublisherError):
    """No token has this identifier, or the sender of the request may not manage it."""


class TooManyTokens(PublisherError):
    """There are as many tokens as the service keeps."""


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A token as it is stored; times are in UTC.

    `projects` is empty for a token for the service itself and all projects. `used` is the last hour
    in which it was used, or None. `person` is the user who created it, as its provider described
    them then; None if that was not a user.
    """

    id: str
    name: str
    projects: tuple[str, ...]
    allows: frozenset[Verb]
    created: datetime
    created_by: str
    expires: datetime
    used: datetime | None
    person: Person | None = None

    def grants(self, access: Access) -> Grants:
        """Return what the token allows, by project.

        Projects that the configuration does not have any more allow nothing, and a token never
        allows more than its creator may do now: those of removed members end at once.
        """
        known = {SERVICE, *(each.name for each in access.projects)}
        names = [name for name in self.projects or (SERVICE,) if name in known]
        grants: Grants = dict.fromkeys(names, self.allows)
        if self.person is None:
            return grants
        may = grants_of(self.person, access.projects, access.administrators)
        return limited_to(grants, may)


def token_end(day: date | None, now: datetime) -> datetime:
    """Return the beginning (UTC) of the first day on which a new token is not valid.

    Without `day`, it is valid for 90 days. Raises ValueError if it would be for more than a year.
    """
    today = now.astimezone(UTC).date()
    found = day if day is not None else today + timedelta(days=_DAYS)
    if not today < found <= today + timedelta(days=_MOST_DAYS):
        raise ValueError(f"expires is not within the next {_MOST_DAYS} days")
    return datetime(found.year, found.month, found.day, tzinfo=UTC)


def token_value(token: StoredToken) -> dict[str, object]:
    """Return a token without its text, as in the document `token/1`."""
    return {
        "id": token.id,
        "name": token.name,
        "projects": list(token.projects),
        "allows": sorted(token.allows),
        "createdAt": format_time(token.created),
        "createdBy": printable(token.created_by),
        "expires": token.expires.date().isoformat(),
        "usedAt": format_time(token.used) if token.used is not None else None,
    }


class Tokens:
    """The tokens in the database of `engine`; methods raise JobsUnavailable."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def create(
        self,
        name: str,
        projects: Sequence[str],
        allows: frozenset[Verb],
        by: str,
        now: datetime,
        expires: datetime,
        person: Person | None = None,
    ) -> tuple[StoredToken, str]:
        """Store a new token, and return it with its text, which is not kept; raise TooManyTokens.

        Tokens that have expired are removed.
        """
        text = PREFIX + secrets.token_urlsafe(32)
        row = {
            "id": secrets.token_hex(8),
            "sha256": digest(text),
            "name": name,
            "projects": json.dumps(sorted(projects)),
            "allows": json.dumps(sorted(allows)),
            "created": seconds(now),
            "created_by": by,
            "expires": seconds(expires),
            "used": None,
            "person": "" if person is None else _person_text(person),
        }
        with available(), self._engine.begin() as connection:
            connection.execute(sa.delete(TOKENS).where(TOKENS.c.expires <= seconds(now)))
            connection.execute(sa.insert(TOKENS).values(row))
            count = connection.execute(sa.select(sa.func.count()).select_from(TOKENS)).scalar_one()
            if count > MOST_TOKENS:
                raise TooManyTokens(
                    "cannot create a token",
                    why=f"there are {MOST_TOKENS} tokens, which is the limit",
                    hint="revoke tokens that are not used",
                )
        return _token(row), text

    def list(self) -> list[StoredToken]:
        """Return all tokens, the oldest first."""
        query = sa.select(TOKENS).order_by(TOKENS.c.created, TOKENS.c.id)
        with available(), self._engine.connect() as connection:
            return [_token(row) for row in connection.execute(query).mappings()]

    def get(self, identifier: str) -> StoredToken:
        """Return a token by its identifier; raise NoSuchToken."""
        query = sa.select(TOKENS).where(TOKENS.c.id == identifier)
        with available(), self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NoSuchToken(
                "cannot find the token",
                why="it does not exist, or has been revoked",
                hint="list the tokens: /api/v1/tokens",
            )
        return _token(row)

    def revoke(self, identifier: str) -> None:
        """Remove a token: it is not valid any more."""
        with available(), self._engine.begin() as connection:
            connection.execute(sa.delete(TOKENS).where(TOKENS.c.id == identifier))

    def remove_expired(self, now: datetime, *, dry_run: bool = False) -> int:
        """Remove the tokens that have expired; return their number.

        Those that allow nothing since their project or creator is not configured any more stay: a
        mistake in the configuration is not to cost them. With `dry_run`, only return the number.
        """
        expired = TOKENS.c.expires <= seconds(now)
        with available(), self._engine.begin() as connection:
            if dry_run:
                counted = sa.select(sa.func.count()).select_from(TOKENS).where(expired)
                return int(connection.scalar(counted) or 0)
            return connection.execute(sa.delete(TOKENS).where(expired)).rowcount

    def find(self, text: str, now: datetime) -> StoredToken | None:
        """Return the token with this text, None if it is not valid; record that it is used."""
        moment = seconds(now)
        chosen = TOKENS.c.sha256 == digest(text), TOKENS.c.expires > moment
        with available(), self._engine.connect() as connection:
            row = connection.execute(sa.select(TOKENS).where(*chosen)).mappings().first()
        if row is None:
            return None
        hour = moment - moment % _USED_SECONDS
        if row["used"] != hour:
            change = sa.update(TOKENS).where(TOKENS.c.id == row["id"]).values(used=hour)
            with available(), self._engine.begin() as connection:
                connection.execute(change)
        return _token(row)


def _token(row: Any) -> StoredToken:
    return StoredToken(
        id=row["id"],
        name=row["name"],
        projects=tuple(json.loads(row["projects"])),
        allows=frozenset(Verb(each) for each in json.loads(row["allows"])),
        created=_time(row["created"]),
        created_by=row["created_by"],
        expires=_time(row["expires"]),
        used=None if row["used"] is None else _time(row["used"]),
        person=_person_of(row["person"]) if row["person"] else None,
    )


def _person_text(person: Person) -> str:
    value = {
        "name": person.name,
        "groups": sorted(person.groups),
        "claims": dict(person.claims),
    }
    return json.dumps(value)


def _person_of(text: str) -> Person:
    value = json.loads(text)
    return Person(value["name"], frozenset(value["groups"]), value["claims"])


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
