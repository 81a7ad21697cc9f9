"""What receivers are notified of, and which receivers there are, as values. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from publisher.errors import printable
from publisher.lazy import dataclass
from publisher.problems import InvalidFile

MOST_EVENTS = 200
"""The most events of one message; further ones are only counted."""

_LONGEST = 500
"""The most characters of one text in a message."""


class InvalidNotifications(InvalidFile):
    """The configuration of notifications has mistakes, or cannot be read."""


class Kind(enum.StrEnum):
    """The kind of an event. Receivers must expect further kinds."""

    PUBLISHED = "published"  # an image was published, or its tag has moved
    FAILED = "failed"  # an image fails for the first time, or for another reason than before
    RECOVERED = "recovered"  # an image that failed is published, or current, again
    WITHDRAWN = "withdrawn"  # no wish list requests the image any more: it is scheduled
    COLLECTED = "collected"  # a scheduled image was removed
    FOUND = "found"  # verify or doctor found a problem
    TEST = "test"  # `publisher notify --test`


@dataclass(frozen=True, slots=True)
class Event:
    """One change that a receiver may be interested in.

    `subject` is the public name of an image, or what a check is about. `text` is the cause of a
    failure, or a description; it may be "". `line` is the line of the wish, or 0.
    """

    kind: Kind
    subject: str
    text: str = ""
    reference: str = ""
    digest: str = ""
    owner: str = ""
    wish_list: str = ""
    line: int = 0

    def to_value(self) -> dict[str, object]:
        """Return the event as JSON, without empty values and control characters."""
        texts = {
            "text": self.text,
            "reference": self.reference,
            "digest": self.digest,
            "owner": self.owner,
            "wishList": self.wish_list,
        }
        value: dict[str, object] = {
            "event": str(self.kind),
            "subject": printable(self.subject)[:_LONGEST],
        }
        value |= {key: printable(text)[:_LONGEST] for key, text in texts.items() if text}
        return value | ({"line": self.line} if self.line else {})


@dataclass(frozen=True, slots=True)
class Run:
    """The run that events come from. `time` is when it ended, in the form of `times`."""

    command: str
    repository: str
    host: str
    time: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a run to one receiver; it is sent under the same `id` until it is delivered.

    `value` is the body of webhooks: see docs/schemas/notification-1.schema.json.
    """

    id: str
    value: Mapping[str, object]

    @classmethod
    def of(cls, identity: str, run: Run, events: Sequence[Event]) -> Message:
        """Return the message with these events; of very many, the first ones."""
        counts: dict[str, int] = {}
        for event in events:
            counts[event.kind] = counts.get(event.kind, 0) + 1
        value = {
            "schema": "publisher/notification/1",
            "id": identity,
            "time": run.time,
            "host": printable(run.host),
            "repository": printable(run.repository),
            "command": run.command,
            "counts": counts,
            "events": [event.to_value() for event in events[:MOST_EVENTS]],
        }
        return cls(identity, value)


class Secret:
    """A text that is never printed: `repr` and `str` do not have it."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that receives messages as signed JSON."""

    url: Secret
    key: Secret


@dataclass(frozen=True, slots=True)
class Service:
    """A service that apprise knows, by its URL."""

    url: Secret


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver and what it is interested in.

    `owners` and `lists` are globs; None for events of all owners or lists, also of none. `line` is
    its place in the configuration.
    """

    name: str
    address: Webhook | Service
    kinds: frozenset[Kind]
    owners: tuple[str, ...] | None = None
    lists: tuple[str, ...] | None = None
    line: int = 0

    def wants(self, event: Event) -> bool:
        """Return whether the receiver is to be notified of the event."""
        return (
            event.kind in self.kinds
            and _matches(event.owner, self.owners)
            and _matches(event.wish_list, self.lists)
        )


def _matches(text: str, patterns: tuple[str, ...] | None) -> bool:
    return patterns is None or any(fnmatchcase(text, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Notifications:
    """The configuration `name`: the receivers, and the seconds that all of them have together."""

    name: str
    receivers: tuple[Receiver, ...]
    timeout: float
