"""The state of a layer while it is unpacked: one row for each path.

The rows of most layers are in memory. Those of a layer with many entries are in a temporary SQLite
database, which sorts them and writes to disk what exceeds its cache, so that memory is bounded.
Names are looked up in the rows, never in a file system.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator

from publisher.entry import Entry, EntryType
from publisher.layers.errors import LayerError, LimitExceeded, UnsafeName
from publisher.layers.index_lines import decode_entry, encode_details
from publisher.layers.names import MAX_COMPONENT_BYTES, is_reserved, shown
from publisher.layers.policy import Limits
from publisher.layers.rows import (
    IMPLICIT,
    OPAQUE,
    WHITED_OUT,
    Rows,
    RowsInDatabase,
    RowsInMemory,
    Values,
)
from publisher.lazy import dataclass

_METADATA_BYTES = 2**30
_METADATA_BYTES_PER_ENTRY = 1000
"""The limit of paths and metadata in bytes per permitted entry, plus 1 GiB; 300 are usual."""
_MOST_SYMLINKS = 40
_MOST_KNOWN_DIRECTORIES = 4096
_MOST_IN_MEMORY = 50_000
_MOST_BYTES_IN_MEMORY = 16 * 2**20
"""How many rows are in memory, and the bytes of their paths and metadata: 40 MiB in all."""


@dataclass(frozen=True, slots=True)
class Row:
    """The entry of the layer at one path; see `Values` in `publisher.layers.rows`."""

    type: str
    flags: int
    inode: int | None
    target: bytes | None
    details: str

    @property
    def is_marker(self) -> bool:
        """Whether this is a whiteout of the archive, and not in place of a dropped device node."""
        return self.type == EntryType.WHITEOUT and '"dropped"' not in self.details


class Ledger:
    """The entries of one layer, by path.

    `what` is the `what` of errors. `imply` creates a directory that the archive has no entry for.
    `lost_files` is whether a later entry replaced a file, or a directory that was not empty.
    """

    def __init__(self, what: str, limits: Limits, imply: Callable[[str], Entry]) -> None:
        self._what = what
        self._limits = limits
        self._imply = imply
        self._known = {""}
        self._inodes = 0
        self.entries = 0
        self.lost_files = False
        self._metadata_bytes = 0
        self._most_metadata_bytes = _METADATA_BYTES + (
            _METADATA_BYTES_PER_ENTRY * limits.layer_entries
        )
        self._rows: Rows = RowsInMemory()

    def close(self) -> None:
        """Free memory and disk space."""
        self._rows.close()

    def get(self, path: str) -> Row | None:
        """Return the row of `path`; None if the layer has no entry there."""
        found = self._rows.get(path)
        return None if found is None else Row(*found)

    def locate(self, path: str, create: bool) -> str | None:
        """Return `path` with the symlinks among its parents resolved inside the layer.

        Missing parents are created if `create` is true; otherwise the result is None. Raises
        LayerError if a parent is neither a directory nor a symlink, or symlinks form a loop.
        """
        parent, _, name = path.rpartition("/")
        if parent not in self._known:
            found = self._walk(parent, create)
            if found is None:
                return None
            if found != parent:
                path = f"{found}/{name}" if found else name
                self._check_length(path)
        return path

    def record(self, entry: Entry) -> None:
        """Record `entry`, which replaces the entry at its path and all entries below that."""
        target = None
        if entry.target:
            target = entry.target.encode("utf-8", "surrogateescape")
        flags = IMPLICIT if entry.implicit else 0
        self._put(entry.path, (str(entry.type), flags, None, target, encode_details(entry)))

    def link(self, path: str, target: str, row: Row) -> None:
        """Record `path` as another name of the file, symlink or FIFO `row` at `target`."""
        inode = row.inode
        if inode is None:
            self._inodes += 1
            inode = self._inodes
            self._rows.set_inode(target, inode)
        self._put(path, (row.type, 0, inode, row.target, row.details))

    def white_out(self, path: str) -> None:
        """Record that a whiteout names `path`. The entry of this layer there stays."""
        if not self._rows.add_flag(path, WHITED_OUT):
            details = encode_details(Entry(path, EntryType.WHITEOUT))
            self._put(path, (EntryType.WHITEOUT.value, WHITED_OUT, None, None, details))

    def make_opaque(self, path: str) -> None:
        """Record that the existing directory `path` hides the entries of lower layers in it."""
        self._rows.add_flag(path, OPAQUE)

    def unresolved(self) -> Iterator[tuple[str, str]]:
        """Yield (path, target) of each hard link whose target was missing when it was recorded."""
        if self.count()[EntryType.HARDLINK]:
            yield from self._in_database().unresolved()

    def late(self) -> Iterator[Entry]:
        """Yield whiteouts and opaque directories, sorted.

        Whiteouts below an opaque directory are omitted: they hide nothing, and overlayfs would list
        them, since it does not merge there.
        """
        hidden: str | None = None
        for line in self._rows.lines(late=True):
            entry = decode_entry(line)
            is_hidden = hidden is not None and entry.path.startswith(hidden)
            if entry.opaque:
                hidden = hidden if is_hidden else f"{entry.path}/" if entry.path else ""
                yield entry
            elif entry.type is EntryType.WHITEOUT and not is_hidden:
                yield entry

    def lines(self) -> Iterator[str]:
        """Yield all entries as lines of the index, sorted."""
        return self._rows.lines()

    def content_size(self) -> int:
        """Return the bytes of all files, each counted once. All entries are read."""
        entries = map(decode_entry, self.lines())
        return sum(entry.size for entry in entries if entry.type is EntryType.FILE)

    def count(self) -> Counter[str]:
        """Return the number of entries of each type; a hard link has the type of its target."""
        return self._rows.count()

    def _put(self, path: str, row: Values) -> None:
        self._metadata_bytes += len(path.encode("utf-8", "surrogateescape")) + len(row[4])
        if (
            self._metadata_bytes > self._most_metadata_bytes
        ):  # each name has the metadata of its file
            raise LimitExceeded(
                self._what,
                limit="metadata_bytes",
                allowed=self._most_metadata_bytes,
                why=f"paths and metadata of its entries exceed {self._most_metadata_bytes} bytes",
            )
        if self.entries >= _MOST_IN_MEMORY or self._metadata_bytes > _MOST_BYTES_IN_MEMORY:
            self._in_database()
        if not self._rows.insert(path, row):
            self._replace(path, row)
            return
        self.entries += 1
        if self.entries > self._limits.layer_entries:
            raise LimitExceeded(
                self._what,
                limit="layer_entries",
                allowed=self._limits.layer_entries,
                why=f"it has more than {self._limits.layer_entries} entries",
            )

    def _in_database(self) -> RowsInDatabase:
        """Move the rows to a database, unless they are in one."""
        if isinstance(self._rows, RowsInMemory):
            self._rows = self._rows.in_database()
        return self._rows

    def _replace(self, path: str, row: Values) -> None:
        kind, flags, inode, target, details = row
        old = self.get(path)
        assert old is not None
        # Markers apply to lower layers, at any position in the archive, and stay.
        flags |= old.flags & (OPAQUE | WHITED_OUT)
        self._metadata_bytes -= len(path.encode("utf-8", "surrogateescape")) + len(old.details)
        if old.type == EntryType.FILE:
            self.lost_files = True
        if old.type == EntryType.DIRECTORY and kind != EntryType.DIRECTORY:
            # In memory, each of these would be a search of all rows.
            below = self._in_database().delete_below(path)
            self.entries -= below
            self.lost_files = self.lost_files or below > 0
            self._known = {""}
        self._rows.update(path, (kind, flags, inode, target, details))

    def _walk(self, path: str, create: bool) -> str | None:
        """Return the resolved path of the directory `path`; see `locate`."""
        waiting = deque(path.split("/"))
        at = ""
        followed = 0
        while waiting:
            name = waiting.popleft()
            if name in ("", "."):
                continue
            if name == "..":
                at = at.rpartition("/")[0]
                continue
            here = f"{at}/{name}" if at else name
            row = None if here in self._known else self.get(here)
            if row is not None and row.type == EntryType.SYMLINK:
                followed += 1
                text = self._link_text(row, followed, path)
                if text.startswith("/"):
                    at = ""
                waiting.extendleft(reversed(text.split("/")))
            elif here in self._known or self._enter(here, row, create, path):
                at = here
            else:
                return None
        return at

    def _link_text(self, row: Row, followed: int, path: str) -> str:
        """Return the text of a symlink, which is the one number `followed` on the way to `path`."""
        if followed > _MOST_SYMLINKS:
            raise LayerError(f"{self._what}, entry below {shown(path)}", why="symlinks form a loop")
        return (row.target or b"").decode("utf-8", "surrogateescape")

    def _enter(self, here: str, row: Row | None, create: bool, path: str) -> bool:
        """Check that `here`, a parent of `path`, is a directory; return whether it exists."""
        if row is None or row.is_marker:
            if not create:
                return False
            self._check_length(here)
            self._check_name(here.rpartition("/")[2])
            self.record(self._imply(here))
        elif row.type != EntryType.DIRECTORY:
            raise LayerError(
                f"{self._what}, entry below {shown(path)}", why=f"{shown(here)} is not a directory"
            )
        if len(self._known) >= _MOST_KNOWN_DIRECTORIES:
            self._known = {""}
        self._known.add(here)
        return True

    def _check_name(self, name: str) -> None:
        """Check a name from the text of a symlink; other names were checked before."""
        if is_reserved(name):
            raise UnsafeName(self._what, why=f"a symlink leads to the reserved name {shown(name)}")
        if len(name.encode("utf-8", "surrogateescape")) > MAX_COMPONENT_BYTES:
            raise UnsafeName(
                self._what, why=f"{shown(name)} is longer than {MAX_COMPONENT_BYTES} bytes"
            )

    def _check_length(self, path: str) -> None:
        size = len(path.encode("utf-8", "surrogateescape"))
        if size > self._limits.path_bytes:
            raise LimitExceeded(
                self._what,
                limit="path_bytes",
                allowed=self._limits.path_bytes,
                found=size,
                why=f"a path is longer than {self._limits.path_bytes} bytes",
            )
        if path.count("/") >= self._limits.depth:
            raise LimitExceeded(
                self._what,
                limit="depth",
                allowed=self._limits.depth,
                found=path.count("/") + 1,
                why=f"a path is nested deeper than {self._limits.depth} directories",
            )
