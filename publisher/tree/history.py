"""The record of every transaction: what it changed, when, by which command, and why."""

from __future__ import annotations

from collections.abc import Mapping

from publisher.codec import AsArray, Codec
from publisher.lazy import dataclass


@dataclass(frozen=True, slots=True)
class Change(AsArray):
    """A change of one image or layer by a transaction: a word such as "published", and why."""

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
    paths: Mapping[str, int]

    def to_value(self) -> dict[str, object]:
        """Return the record as it is written in a journal or in the history."""
        return _CODEC.to_object(self)

    @classmethod
    def from_value(cls, value: object) -> Record:
        """Read what `to_value` returned; raise ValueError for anything else."""
        return _CODEC.from_value(value)


_CODEC = Codec(Record)
