"""The state of a snapshotter in SQLite: which snapshots exist."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from publisher.errors import PublisherError
from publisher.snapshotter.model import Kind, Snapshot

_VERSION = 1
_TABLE = """
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    parent INTEGER REFERENCES snapshots (id),
    kind INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    labels TEXT NOT NULL,
    layer TEXT NOT NULL,
    chain TEXT NOT NULL,
    size INTEGER NOT NULL DEFAULT 0,
    inodes INTEGER NOT NULL DEFAULT 0
)
"""
_COLUMNS = """
    s.id, s.name, coalesce(p.name, ''), s.kind, s.created, s.updated, s.labels, s.layer, s.size,
    s.inodes
"""
_FROM = "FROM snapshots AS s LEFT JOIN snapshots AS p ON p.id = s.parent"
_STACK = """
WITH RECURSIVE stack (id, parent, layer, depth) AS (
    SELECT id, parent, layer, 0 FROM snapshots WHERE id = ?
    UNION ALL
    SELECT below.id, below.parent, below.layer, depth + 1
    FROM stack JOIN snapshots AS below ON below.id = stack.parent
)
SELECT id, layer FROM stack ORDER BY depth
"""


class Level(NamedTuple):
    """What one snapshot of a stack shows: the files of this number, or a layer of a tree."""

    number: int
    layer: str


class StateUnusable(PublisherError):
    """The state cannot be opened: it is damaged, of another version, or in use."""


class Store:
    """The snapshots by name and number. Methods are called inside `transaction` only."""

    def __init__(self, path: Path) -> None:
        """Open the database, or create it.

        Raises:
            StateUnusable: The file is not such a database, or of a later version.
        """
        self._lock = threading.Lock()
        self._path = path
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._open()
        except sqlite3.Error as error:
            raise StateUnusable(
                f"cannot use the state in {path}",
                why=str(error),
                hint="stop containerd, remove its images and the directory, and start again",
            ) from error
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            raise StateUnusable(
                f"cannot use the state in {path}",
                why=f"its version is {version}, and this program reads {_VERSION}",
                hint="use the release of the publisher that wrote it",
            )

    def _open(self) -> None:
        database = self._database
        # No other process has the state open, so that its pages need no locks in shared memory.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        # A lost commit would be a snapshot that containerd knows and that is missing here.
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
        with self.transaction():
            if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
                database.execute(_TABLE)
                database.execute("CREATE INDEX children ON snapshots (parent, chain)")
                database.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block alone; all of its changes are kept, or none.

        Raises:
            OSError: The database cannot be written, such as ENOSPC on a full disk.
        """
        with self._lock, self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            is_full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
            number, text = (errno.ENOSPC, "") if is_full else (errno.EIO, str(error))
            raise OSError(number, text or os.strerror(number), str(self._path)) from error

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def find(self, name: str) -> Snapshot | None:
        """Return the snapshot of that name."""
        rows = self._database.execute(f"SELECT {_COLUMNS} {_FROM} WHERE s.name = ?", (name,))
        return next(map(_snapshot, rows), None)

    def all(self) -> list[Snapshot]:
        """Return all snapshots in the order of their creation."""
        rows = self._database.execute(f"SELECT {_COLUMNS} {_FROM} ORDER BY s.id")
        return [_snapshot(row) for row in rows]

    def numbered(self, number: int) -> Snapshot:
        """Return the snapshot of that number, which exists."""
        rows = self._database.execute(f"SELECT {_COLUMNS} {_FROM} WHERE s.id = ?", (number,))
        return _snapshot(rows.fetchone())

    def stack(self, snapshot: Snapshot) -> list[Level]:
        """Return what a snapshot and those below it show, from the top to the bottom."""
        return [Level(*row) for row in self._database.execute(_STACK, (snapshot.id,))]

    def has_children(self, snapshot: Snapshot) -> bool:
        """Return whether this snapshot is the parent of another one."""
        row = self._database.execute(
            "SELECT EXISTS (SELECT 1 FROM snapshots WHERE parent = ?)", (snapshot.id,)
        )
        return bool(row.fetchone()[0])

    def published(self, parent: Snapshot | None, chain: str) -> Snapshot | None:
        """Return the snapshot of the stack `chain` on `parent` that shows a layer of a tree."""
        rows = self._database.execute(
            f"SELECT {_COLUMNS} {_FROM} WHERE s.parent IS ? AND s.chain = ?",
            (parent and parent.id, chain),
        )
        return next(map(_snapshot, rows), None)

    def add(
        self,
        name: str,
        parent: Snapshot | None,
        kind: Kind,
        now: int,
        labels: Mapping[str, str],
        layer: str = "",
        chain: str = "",
    ) -> int:
        """Add a snapshot, for which `published` finds one of `chain`; return its number."""
        added = self._database.execute(
            "INSERT INTO snapshots (name, parent, kind, created, updated, labels, layer, chain) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (name, parent and parent.id, kind, now, now, _encode(labels), layer, chain),
        )
        assert added.lastrowid is not None
        return added.lastrowid

    def commit(
        self,
        snapshot: Snapshot,
        name: str,
        parent: Snapshot | None,
        now: int,
        labels: Mapping[str, str],
        usage: tuple[int, int],
    ) -> None:
        """Make an active snapshot a committed one, under another name."""
        self._database.execute(
            "UPDATE snapshots SET name = ?, parent = ?, kind = ?, created = ?, updated = ?, "
            "labels = ?, size = ?, inodes = ? WHERE id = ?",
            (
                name,
                parent and parent.id,
                Kind.COMMITTED,
                now,
                now,
                _encode(labels),
                *usage,
                snapshot.id,
            ),
        )

    def set_labels(self, snapshot: Snapshot, labels: Mapping[str, str], now: int) -> None:
        """Replace the labels of a snapshot."""
        self._database.execute(
            "UPDATE snapshots SET labels = ?, updated = ? WHERE id = ?",
            (_encode(labels), now, snapshot.id),
        )

    def set_layer(self, snapshot: Snapshot, layer: str) -> None:
        """Record another place of the layer that a snapshot shows."""
        self._database.execute("UPDATE snapshots SET layer = ? WHERE id = ?", (layer, snapshot.id))

    def delete(self, snapshot: Snapshot) -> None:
        """Delete a snapshot without children."""
        self._database.execute("DELETE FROM snapshots WHERE id = ?", (snapshot.id,))


def _snapshot(row: tuple[Any, ...]) -> Snapshot:
    number, name, parent, kind, created, updated, labels, layer, size, inodes = row
    return Snapshot(
        id=number,
        name=name,
        parent=parent,
        kind=Kind(kind),
        created=created,
        updated=updated,
        labels=json.loads(labels),
        layer=layer,
        size=size,
        inodes=inodes,
    )


def _encode(labels: Mapping[str, str]) -> str:
    return json.dumps({key: value for key, value in sorted(labels.items()) if value})
