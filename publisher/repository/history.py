"""The history file of a repository: JSON lines, one for each transaction that was executed.

A transaction that is interrupted and executed again still has one line. A full file is renamed to
`history.1.jsonl`, older ones to the next number, and the oldest is overwritten.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from publisher.repository.disk import NotAFile, open_file, remove_tree
from publisher.tree.history import Record

MAX_BYTES = 16 * 1024 * 1024
KEPT_FILES = 8
_BLOCK = 64 * 1024

_log = logging.getLogger(__name__)


class History:
    """The records of one repository, in its state directory. Appending needs the writer lock."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "history.jsonl"

    def append(self, value: dict[str, object]) -> bool:
        """Append a record, unless it is the latest one already; return whether it was appended.

        The caller syncs it.
        """
        self._replace_what_is_not_a_file()
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            if value["id"] in (_latest_id(file), self._latest_rotated_id()):
                return False
            # A line that an interruption cut off is overwritten.
            file.seek(_end_of_last_line(file))
            file.write(json.dumps(value).encode() + b"\n")
            file.truncate()
            size = file.tell()
        if size > MAX_BYTES:
            self._rotate()
        return True

    def read(self, damaged: Callable[[str], None] = _log.warning) -> Iterator[Record]:
        """Yield the records, the latest first; damaged lines are left out.

        Memory does not grow with the history.

        Args:
            damaged: Called with a text for each file that is damaged, or not a file.
        """
        inodes: set[int] = set()
        for number in range(KEPT_FILES + 1):
            place = self._numbered(number)
            try:
                file = open_file(place)
            except FileNotFoundError:
                continue
            except NotAFile as error:
                damaged(f"{error.filename}: {error.strerror}")
                continue
            is_whole = True
            with file:
                inode = os.fstat(file.fileno()).st_ino
                if inode in inodes:
                    continue  # it was renamed while it was read
                inodes.add(inode)
                for line in _lines_backwards(file):
                    try:
                        yield Record.from_value(json.loads(line))
                    except (ValueError, RecursionError):
                        if is_whole:
                            damaged(f"{place}: damaged lines in it are left out")
                        is_whole = False

    def _replace_what_is_not_a_file(self) -> None:
        try:
            open_file(self._file).close()
        except FileNotFoundError:
            pass
        except NotAFile as error:
            _log.warning("%s: %s; a new history begins", error.filename, error.strerror)
            remove_tree(self._file)

    def _latest_rotated_id(self) -> str:
        try:
            with open_file(self._numbered(1)) as file:
                return _latest_id(file)
        except (FileNotFoundError, NotAFile):
            return ""

    def _numbered(self, number: int) -> Path:
        return self._file.with_name(f"history.{number}.jsonl") if number else self._file

    def _rotate(self) -> None:
        for number in range(KEPT_FILES - 1, -1, -1):
            if self._numbered(number).exists():
                self._numbered(number).replace(self._numbered(number + 1))


def _latest_id(file: BinaryIO) -> str:
    try:
        return str(json.loads(next(_lines_backwards(file), b"{}")).get("id", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


def _end_of_last_line(file: BinaryIO) -> int:
    """Return the offset after the last newline; 0 if there is no newline."""
    end = os.fstat(file.fileno()).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        found = _read(file, start, end).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _lines_backwards(file: BinaryIO) -> Iterator[bytes]:
    """Yield the complete lines of `file`, the last first; an incomplete last line is left out."""
    end = _end_of_last_line(file)
    rest = b""
    while end > 0:
        start = max(0, end - _BLOCK)
        first, *lines = (_read(file, start, end) + rest).split(b"\n")
        yield from (line for line in reversed(lines) if line)
        rest, end = first, start
    if rest:
        yield rest


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    return os.pread(file.fileno(), end - start, start)
