"""The record of every transaction: who changed what, when, with which command, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Change:
    """What a transaction did to one image or layer, in a word ("published"), and why."""

    name: str
    what: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One transaction. `paths` counts, by kind, what was added, replaced and removed."""

    id: str
    time: str
    user: str
    host: str
    pid: int
    purpose: str
    changes: tuple[Change, ...]
    paths: dict[str, int]

    def to_value(self) -> dict[str, Any]:
        """The record as it stands in a journal or in the history."""
        return {
            "id": self.id,
            "time": self.time,
            "user": self.user,
            "host": self.host,
            "pid": self.pid,
            "purpose": self.purpose,
            "changes": [[c.name, c.what, c.why] for c in self.changes],
            "paths": self.paths,
        }

    @classmethod
    def from_value(cls, value: dict[str, Any]) -> Record:
        """The inverse of to_value."""
        changes = tuple(Change(*change) for change in value["changes"])
        return cls(**{**value, "changes": changes})
