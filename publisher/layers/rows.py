"""The rows of a ledger, one for each path: in memory, or in a temporary SQLite database.

Both kinds have the same methods. Those in memory take a fifth of the time, but their number has to
be limited, and they can neither be deleted below a path nor searched for unresolved links.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from json.encoder import encode_basestring_ascii

from publisher.entry import EntryType, sort_key
from publisher.layers.index_lines import entry_start
from publisher.layers.temporary import temporary_database

IMPLICIT = 1
OPAQUE = 2
WHITED_OUT = 4
"""A whiteout names this path as well, so that the entry of lower layers is hidden."""

Values = tuple[str, int, int | None, bytes | None, str]
"""Type, flags, inode, target, and details: the rest of its line in the index.

A hard link whose target was found has the row of the target, with the same inode. Another hard link
has the type HARDLINK, and the path in `target`, which is that of a symlink otherwise.
"""

_SCHEMA = """
CREATE TABLE entry (
    key BLOB PRIMARY KEY, type TEXT, flags INTEGER, inode INTEGER, target BLOB, details TEXT
) WITHOUT ROWID;
CREATE INDEX names ON entry (inode, key) WHERE inode IS NOT NULL;
CREATE INDEX unresolved ON entry (key) WHERE type = 'h';
"""
_INSERT = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)"
_LATE_FLAGS = OPAQUE | WHITED_OUT


class RowsInMemory:
    """Rows in a dictionary."""

    def __init__(self) -> None:
        self._rows: dict[str, Values] = {}

    def close(self) -> None:
        """Free the memory."""
        self._rows.clear()

    def get(self, path: str) -> Values | None:
        """Return the row of `path`, if there is one."""
        return self._rows.get(path)

    def insert(self, path: str, row: Values) -> bool:
        """Add a row; return False, and add nothing, if the path has one."""
        return self._rows.setdefault(path, row) is row

    def update(self, path: str, row: Values) -> None:
        """Replace the row of a path that has one."""
        self._rows[path] = row

    def set_inode(self, path: str, inode: int) -> None:
        """Set the inode of a row."""
        kind, flags, _, target, details = self._rows[path]
        self._rows[path] = kind, flags, inode, target, details

    def add_flag(self, path: str, flag: int) -> bool:
        """Set a flag of a row; return whether there is a row."""
        row = self._rows.get(path)
        if row is None:
            return False
        kind, flags, inode, target, details = row
        self._rows[path] = kind, flags | flag, inode, target, details
        return True

    def count(self) -> Counter[str]:
        """Return the number of rows of each type."""
        return Counter(row[0] for row in self._rows.values())

    def lines(self, *, late: bool = False) -> Iterator[str]:
        """Yield the rows as lines of the index, sorted; with `late`, whiteouts and opaque ones."""
        rows = self._rows
        found: Iterable[str] = rows
        if late:
            found = [
                path
                for path, row in rows.items()
                if row[1] & _LATE_FLAGS or row[0] == EntryType.WHITEOUT
            ]
        heads: dict[int, tuple[str, int]] = {}
        names = [path for path, row in rows.items() if row[2] is not None]
        for path in sorted(names, key=sort_key):
            inode = rows[path][2]
            assert inode is not None
            first, count = heads.get(inode, (path, 0))
            heads[inode] = first, count + 1
        for path in sorted(found, key=sort_key):
            kind, flags, inode, _, details = rows[path]
            if flags or inode is not None:
                first, count = heads[inode] if inode is not None else ("", 1)
                yield _special_line(path, kind, flags, details, first, count)
            else:
                yield f"{entry_start(path, kind)}{details}}}"

    def in_database(self) -> RowsInDatabase:
        """Return the same rows in a database; there are none here any more."""
        moved = RowsInDatabase()
        moved.insert_all(self._rows)
        self._rows.clear()
        return moved


class RowsInDatabase:
    """Rows in a database, which writes to disk what exceeds its cache."""

    def __init__(self) -> None:
        self._database = temporary_database(_SCHEMA)
        self._execute = self._database.execute

    def close(self) -> None:
        """Free memory and disk space."""
        self._database.close()

    def get(self, path: str) -> Values | None:
        """Return the row of `path`, if there is one."""
        found: Values | None = self._execute(
            "SELECT type, flags, inode, target, details FROM entry WHERE key = ?",
            (sort_key(path),),
        ).fetchone()
        return found

    def insert(self, path: str, row: Values) -> bool:
        """Add a row; return False, and add nothing, if the path has one."""
        try:
            self._execute(_INSERT, (sort_key(path), *row))
        except sqlite3.IntegrityError:
            return False
        return True

    def insert_all(self, rows: dict[str, Values]) -> None:
        """Add rows of paths that have none, in the order that takes the least time."""
        ordered = sorted(rows, key=sort_key)
        self._database.executemany(_INSERT, ((sort_key(path), *rows[path]) for path in ordered))

    def update(self, path: str, row: Values) -> None:
        """Replace the row of a path that has one."""
        self._execute(
            "UPDATE entry SET type = ?, flags = ?, inode = ?, target = ?, details = ?"
            " WHERE key = ?",
            (*row, sort_key(path)),
        )

    def set_inode(self, path: str, inode: int) -> None:
        """Set the inode of a row."""
        self._execute("UPDATE entry SET inode = ? WHERE key = ?", (inode, sort_key(path)))

    def add_flag(self, path: str, flag: int) -> bool:
        """Set a flag of a row; return whether there is a row."""
        changed = self._execute(
            "UPDATE entry SET flags = flags | ? WHERE key = ?", (flag, sort_key(path))
        )
        return changed.rowcount > 0

    def delete_below(self, path: str) -> int:
        """Delete the rows below `path`, and return how many there were."""
        key = sort_key(path)
        below = self._execute(
            "DELETE FROM entry WHERE key > ? AND key < ?", (key + b"\0", key + b"\1")
        )
        return below.rowcount

    def unresolved(self) -> Iterator[tuple[str, str]]:
        """Yield path and target of hard links without an inode, sorted; rows may be changed."""
        key = b""
        while True:  # one query for each row, since the caller changes rows
            found = self._execute(
                "SELECT key, target FROM entry WHERE type = 'h' AND key > ? ORDER BY key LIMIT 1",
                (key,),
            ).fetchone()
            if found is None:
                return
            key, target = found
            yield _path(key), target.decode("utf-8", "surrogateescape")

    def count(self) -> Counter[str]:
        """Return the number of rows of each type."""
        return Counter(
            dict(self._execute("SELECT type, COUNT(*) FROM entry GROUP BY type").fetchall())
        )

    def lines(self, *, late: bool = False) -> Iterator[str]:
        """Yield the rows as lines of the index, sorted; with `late`, whiteouts and opaque ones."""
        self._execute("DROP TABLE IF EXISTS head")
        self._execute(
            "CREATE TEMP TABLE head AS SELECT inode AS id, MIN(key) AS first, COUNT(*) AS names"
            " FROM entry WHERE inode IS NOT NULL GROUP BY inode"
        )
        self._execute("CREATE UNIQUE INDEX temp.heads ON head (id)")
        condition = f"type = 'w' OR flags & {_LATE_FLAGS}" if late else "1"
        rows = self._execute(
            "SELECT key, type, flags, details, first, names"
            f" FROM entry LEFT JOIN head ON head.id = inode WHERE {condition} ORDER BY key"
        )
        for key, kind, flags, details, first, names in rows:
            path = _path(key)
            if flags or names is not None:
                head = _path(first) if first is not None else ""
                yield _special_line(path, kind, flags, details, head, names or 1)
            else:
                yield f"{entry_start(path, kind)}{details}}}"


Rows = RowsInMemory | RowsInDatabase


def _path(key: bytes) -> str:
    return key.replace(b"\0", b"/").decode("utf-8", "surrogateescape")


def _special_line(path: str, kind: str, flags: int, details: str, first: str, names: int) -> str:
    """Return the line of a row with flags or several names, which are not in its details."""
    if kind == EntryType.DIRECTORY:
        if flags & WHITED_OUT and flags & IMPLICIT:
            # The layer deletes the directory and creates a new one, which does not inherit
            # metadata.
            details = details.replace(',"implicit":true', "")
        if flags & (OPAQUE | WHITED_OUT):
            details += ',"opaque":true'
    elif names > 1:
        details += f',"links":{names}'
        if path != first and kind == EntryType.FILE:
            kind = EntryType.HARDLINK.value
            details += f',"target":{encode_basestring_ascii(first)}'
    return f"{entry_start(path, kind)}{details}}}"
