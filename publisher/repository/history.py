"""The record of every transaction: who changed what, when, with which command, and why.

JSON lines, appended when a transaction is carried out, once each however often that is
interrupted. A full file is renamed to `history.1.jsonl` (the older ones move up), the oldest goes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES = 16 * 1024 * 1024
KEPT_FILES = 8
_TAIL = 1024 * 1024


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


class History:
    """The records of one repository, in its state directory. Appending needs the writer lock."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "history.jsonl"

    def append(self, value: dict[str, Any]) -> None:
        """Add a record on disk, unless it is there already."""
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            end = _end_of_last_line(file.fileno())
            if value["id"] in _ids(_read(file.fileno(), max(0, end - _TAIL), end)):
                return
            # A line that was cut off by an interruption is overwritten.
            file.seek(end)
            file.write(json.dumps(value).encode() + b"\n")
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        if size > MAX_BYTES:
            self._rotate()

    def read(self) -> Iterator[Record]:
        """Every record that is kept, the oldest first; a line that is being written is left out."""
        for number in range(KEPT_FILES, -1, -1):
            try:
                file = self._numbered(number).open("rb")
            except FileNotFoundError:
                continue
            with file:
                yield from (
                    Record.from_value(json.loads(line)) for line in file if line.endswith(b"\n")
                )

    def _numbered(self, number: int) -> Path:
        return self._file.with_name(f"history.{number}.jsonl") if number else self._file

    def _rotate(self) -> None:
        for number in range(KEPT_FILES - 1, -1, -1):
            if self._numbered(number).exists():
                self._numbered(number).replace(self._numbered(number + 1))


def _end_of_last_line(descriptor: int) -> int:
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL)
    return start + _read(descriptor, start, size).rfind(b"\n") + 1


def _read(descriptor: int, start: int, end: int) -> bytes:
    return os.pread(descriptor, end - start, start)


def _ids(data: bytes) -> Sequence[str]:
    # The first line may be cut off by where we began to read.
    found = []
    for line in data.splitlines():
        try:
            found.append(json.loads(line)["id"])
        except ValueError:
            continue
    return found
