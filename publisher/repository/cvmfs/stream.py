"""Entries -> the tar stream that `cvmfs_server ingest` gets: ordered, and checked as it is made.

The server takes a stream at its word. What it does not survive, or would publish broken, is refused
here, before it is written: a path twice, a file where a directory is, names with `..`, markers that
others obey, hard links to what is nowhere.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from publisher.entry import Entry, EntryType
from publisher.errors import PublisherError
from publisher.repository.cvmfs.catalogs import MARKER, starts_catalog
from publisher.repository.cvmfs.header import BLOCK, END, encode, padding

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -16384;
CREATE TABLE sent (path BLOB PRIMARY KEY, state INTEGER) WITHOUT ROWID;
BEGIN;
"""
_NO_DIRECTORY, _DIRECTORY, _NEW_DIRECTORY = range(3)
_PIECE = 256 * 1024

Write = Callable[[bytes], None]
Kind = Callable[[str], EntryType | None]


class UnfitForStream(PublisherError):
    """An entry cannot be sent, since the server would abort or publish something broken."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose the directories and records are that the publisher makes itself."""

    uid: int = 0
    gid: int = 0


class TarStream:
    """Writes entries, whose paths are relative to the repository's root, as one tar archive.

    `kind` says what the repository has at a path already. Directories that are missing above an
    entry are sent before it, and nested catalogs where they should start. `base` is the directory
    that the server will unpack below; everything sent must lie in it. Memory does not grow with
    what is sent. Close it, or use it as a context manager; only `end` completes the archive.
    """

    def __init__(self, write: Write, kind: Kind, owner: Owner, base: str = "") -> None:
        self._out = _HeldBack(write)
        self._kind = kind
        self._owner = owner
        self._base = f"{base}/" if base else ""
        self._parent = ""
        self._parent_is_new = False
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_SCHEMA)

    def __enter__(self) -> TarStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, entry: Entry, content: Iterable[bytes | memoryview] = ()) -> None:
        """Send `entry`; `content` gives a file's `entry.size` bytes."""
        name = entry.path.rpartition("/")[2]
        if name.startswith(".cvmfs"):
            raise _unfit(entry.path, "the name means something to the server")
        self._send(entry, content)
        if entry.type is EntryType.DIRECTORY and starts_catalog(entry.path):
            self.start_catalog(entry.path)

    def start_catalog(self, directory: str) -> None:
        """Let a nested catalog start at `directory`, which was sent."""
        if not self._sent(directory):
            raise _unfit(directory, "a catalog should start there, and it was not sent")
        path = f"{directory}/{MARKER}"
        uid, gid = self._owner.uid, self._owner.gid
        self._send(Entry(path, EntryType.FILE, 0o644, uid, gid), ())

    def make_parents(self, path: str) -> None:
        """Send the directories above `path` that are neither sent nor there."""
        parent = path.rpartition("/")[0]
        if parent == self._parent:
            return
        # The server goes into its base before it reads anything.
        is_base = not parent or self._base == f"{parent}/"
        state = _DIRECTORY if is_base else self._sent(parent)
        if state is None:
            there = self._kind(parent)
            if there is None and not self._base.startswith(f"{parent}/"):
                owner = self._owner
                self.add(Entry(parent, EntryType.DIRECTORY, 0o755, owner.uid, owner.gid))
                state = self._sent(parent)
            elif there is EntryType.DIRECTORY:
                state = _DIRECTORY
        if not state:
            raise _unfit(path, f"{parent} is not a directory")
        self._parent, self._parent_is_new = parent, state == _NEW_DIRECTORY

    def end(self) -> None:
        """Complete the archive. Until then it cannot be taken for complete, wherever it is cut."""
        self._out.write(END)
        self._out.release()

    def _send(self, entry: Entry, content: Iterable[bytes | memoryview]) -> None:
        path = entry.path
        if not path.startswith(self._base):
            raise _unfit(path, f"it does not lie below {self._base}")
        _check_name(path)
        self.make_parents(path)
        if entry.type is EntryType.HARDLINK:
            entry = self._checked_link(entry)
        elif entry.type is EntryType.SYMLINK and not entry.target:
            raise _unfit(path, "a symlink without a target")
        # Below a directory that comes with this stream there is nothing yet.
        there = None if self._parent_is_new else self._kind(path)
        is_directory = entry.type is EntryType.DIRECTORY
        if there is not None and is_directory != (there is EntryType.DIRECTORY):
            raise _unfit(path, f"something else stands there ({there.name.lower()})")
        new = _DIRECTORY if there else _NEW_DIRECTORY
        self._note(path, new if is_directory else _NO_DIRECTORY)
        relative = path[len(self._base) :]
        self._out.write(encode(renamed(entry, relative)))
        if entry.type is EntryType.FILE:
            self._write_content(entry, content)

    def _write_content(self, entry: Entry, content: Iterable[bytes | memoryview]) -> None:
        size = 0
        for piece in content:
            size += len(piece)
            if size > entry.size:
                break
            self._out.write(piece)
        if size != entry.size:
            raise _unfit(entry.path, f"its content is not the {entry.size} bytes it should be")
        self._out.write(padding(size))

    def _checked_link(self, entry: Entry) -> Entry:
        sent = self._sent(entry.target)
        there = self._kind(entry.target) if sent is None else None
        if sent is None and there is None:
            raise _unfit(entry.path, f"it is a link to {entry.target}, which is nowhere")
        if sent or there is EntryType.DIRECTORY:
            raise _unfit(entry.path, f"it is a hard link to the directory {entry.target}")
        if not entry.target.startswith(self._base):
            raise _unfit(entry.path, f"it is a link to {entry.target}, outside {self._base}")
        return renamed(entry, entry.path, entry.target[len(self._base) :])

    def _sent(self, path: str) -> int | None:
        row = self._database.execute(
            "SELECT state FROM sent WHERE path = ?", (_key(path),)
        ).fetchone()
        return None if row is None else int(row[0])

    def _note(self, path: str, state: int) -> None:
        try:
            self._database.execute("INSERT INTO sent VALUES (?, ?)", (_key(path), state))
        except sqlite3.IntegrityError as error:
            raise _unfit(path, "it was sent already") from error


class _HeldBack:
    """Gathers small writes, each of which ends one byte before the end of a block.

    Readers take a stream that ends between two members for a complete one. A publisher that is
    killed must not be mistaken for one that was done. Since all writes begin and end within a block
    so do the pages of them, which is what a pipe takes at a time.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._held = bytearray()
        self._written = 0

    def write(self, data: bytes | memoryview) -> None:
        self._held += data
        if len(self._held) > _PIECE:
            end = len(self._held) - (self._written + len(self._held) + 1) % BLOCK
            self._write(bytes(self._held[:end]))
            self._written += end
            del self._held[:end]

    def release(self) -> None:
        self._write(bytes(self._held))
        self._held.clear()


def _check_name(path: str) -> None:
    for name in path.split("/"):
        if name in ("", ".", ".."):
            raise _unfit(path, "the path is not plain")
        if name.startswith(".wh."):
            raise _unfit(path, "the server would store a marker as if it were a file")
    if "\0" in path:
        raise _unfit(path, "the name holds a zero byte")


def renamed(entry: Entry, path: str, target: str | None = None) -> Entry:
    """What of `entry` a stream holds, at `path`, and linking to `target` if one is given."""
    if path == entry.path and target is None:
        return entry
    return Entry(
        path,
        entry.type,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size,
        entry.mtime_ns,
        entry.target if target is None else target,
        device=entry.device,
    )


def _key(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _unfit(path: str, why: str) -> UnfitForStream:
    return UnfitForStream(f"cannot send {path!r} to the server", why=why)
