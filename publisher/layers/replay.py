"""Read a layer again from its blob and its index, in an order in which it can be sent.

In an archive, directories may follow their children, and a member may replace an earlier one. A
stream to the server must not contain entries that are replaced later. The index contains the final
entries, so that a second pass over the blob can send the directories first, from the index; then
the content of the final files, in the archive's order; then links and other entries without
content.
"""

from __future__ import annotations

import heapq
import io
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, cast

from publisher.entry import Content, Entry, EntryType, Fixup, Hole, sort_key
from publisher.layers.content import ContentHash
from publisher.layers.errors import LayerError
from publisher.layers.index import LayerIndex, decode_entry, read_index
from publisher.layers.policy import Limits, Policy
from publisher.layers.temporary import temporary_database, temporary_databases
from publisher.layers.unpack import unpack
from publisher.oci.descriptor import Descriptor
from publisher.oci.media_types import OCI_LAYER

_ORDER = "CREATE TABLE IF NOT EXISTS file (key BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID;"
_ORDER_AS_STORED = _ORDER.replace("IF NOT EXISTS ", "").removesuffix(";")
_HEADS = "CREATE TABLE head (number INTEGER PRIMARY KEY, line TEXT);"
_UNLIMITED = Policy(limits=Limits(*[2**62] * len(fields(Limits))))
"""No limits, since the repository's limits were applied when the layer was unpacked."""

Add = Callable[[Entry, Content], None]
Borrow = Callable[[Fixup], None]


class FileOrder:
    """A TreeSink that records in `file` the number of the content of each file.

    The contents of an archive are numbered from 1. Memory is bounded.
    """

    def __init__(self, file: Path) -> None:
        self._database = temporary_database(_ORDER, file)
        self._execute = self._database.execute
        self._number = 0

    def add(self, entry: Entry, content: Content = ()) -> None:
        """Record `entry`. The content is not read: the caller hashes it."""
        if entry.type is EntryType.FILE:
            self._number += 1
            self._note(entry.path, self._number)
        elif entry.type is EntryType.HARDLINK:
            number = self.number(entry.target)
            if number is not None:
                self._note(entry.path, number)

    def check(self) -> None:
        """Raise DatabaseError unless the file is as this class makes it.

        A process that an image has taken over may have written it: a view could compute forever.
        """
        self._execute("PRAGMA trusted_schema = OFF")
        self._execute("PRAGMA cell_size_check = ON")
        found = self._execute("SELECT type, name, sql FROM sqlite_master").fetchmany(2)
        if found != [("table", "file", _ORDER_AS_STORED)]:
            raise sqlite3.DatabaseError("it has other tables")

    def finish(self) -> None:
        """Commit the records to the file."""
        self._execute("COMMIT")
        self._execute("BEGIN")

    def close(self) -> None:
        """Close the file. May be called more than once."""
        self._database.close()

    def number(self, path: str) -> int | None:
        """Return the number of the content of `path`; None if it is not a file."""
        row = self._execute("SELECT number FROM file WHERE key = ?", (sort_key(path),)).fetchone()
        return row[0] if row is not None and type(row[0]) is int else None

    def _note(self, path: str, number: int) -> None:
        self._execute("INSERT OR REPLACE INTO file VALUES (?, ?)", (sort_key(path), number))


def replay(
    chunks: Iterable[bytes],
    index: BinaryIO,
    order: Path,
    fixups: Iterable[Fixup],
    add: Add,
    borrow: Borrow,
) -> None:
    """Pass each final entry of the layer to `add`, directories before their entries.

    Digest, size and diff ID of the blob are verified again, and each file's content is compared
    with the index.

    Args:
        chunks: The blob, as it was when `order` was recorded.
        index: The layer's index.
        order: The file of a `FileOrder` from the first time that the layer was unpacked.
        fixups: The fixups of the layer, sorted.
        add: Receives an entry and its content, which it must read at once.
        borrow: Receives a fixup whose content is in a lower layer.

    Raises:
        DigestMismatch: The blob changed.
        LayerError: Blob, index and order do not agree, or a temporary database cannot be stored.
        Exception: Whatever `add` and `borrow` raise.
    """
    layer = read_index(index)
    fixed = tuple(fixups)
    for entry, fixup in _final(layer, fixed):
        if entry.type is EntryType.DIRECTORY and fixup is None:
            add(entry, ())
    header = layer.header
    with (
        temporary_databases(f"cannot send layer {header.digest}"),
        closing(FileOrder(order)) as numbers,
        _heads(layer, numbers) as heads,
    ):
        descriptor = Descriptor(OCI_LAYER, header.digest, header.size)
        sink = _Replaying(heads, add)
        unpack(chunks, descriptor, header.diff_id, sink, cast(BinaryIO, _Nowhere()), _UNLIMITED)
        sink.check_complete(header.digest)
    for entry, fixup in _final(layer, fixed):
        if fixup is not None:
            borrow(fixup)
        elif entry.type not in (EntryType.DIRECTORY, EntryType.FILE):
            add(entry, ())


def _final(layer: LayerIndex, fixups: Iterable[Fixup]) -> Iterator[tuple[Entry, Fixup | None]]:
    """Yield the entries of the tree, sorted: those of the index with the changes of `fixups`.

    The second item is the fixup of an entry whose content is in a lower layer, else None.
    """
    own = ((sort_key(entry.path), 0, entry, None) for entry in _own(layer))
    needed = ((sort_key(f.entry.path), 1, f.entry, f) for f in fixups)
    merged = heapq.merge(own, needed, key=itemgetter(0, 1))
    for _, group in groupby(merged, itemgetter(0)):
        *_, (_, _, entry, fixup) = group
        yield entry, fixup if fixup is not None and fixup.layer is not None else None


def _own(layer: LayerIndex) -> Iterator[Entry]:
    """Yield the entries of the tree that do not depend on lower layers.

    These are all except whiteouts instead of devices or below opaque directories, and links whose
    target is in a lower layer. If such an entry is needed, there is a fixup.
    """
    hidden: str | None = None
    for entry in layer:
        if entry.opaque and not (hidden is not None and entry.path.startswith(hidden)):
            hidden = f"{entry.path}/" if entry.path else ""
        if entry.is_unresolved:
            continue
        if entry.type is EntryType.WHITEOUT:
            is_hidden = hidden is not None and entry.path.startswith(hidden)
            if is_hidden or entry.dropped:
                continue
        yield entry


@contextmanager
def _heads(layer: LayerIndex, order: FileOrder) -> Iterator[Iterator[tuple[int, Entry]]]:
    """Open an iterator over the files of the index: content number and entry, by that number."""
    order.check()
    with closing(temporary_database(_HEADS)) as database:
        for line in layer.lines():
            entry = decode_entry(line)
            if entry.type is EntryType.FILE:
                number = order.number(entry.path)
                if number is None:
                    raise _changed(entry.path)
                database.execute("INSERT INTO head VALUES (?, ?)", (number, line))
        rows = database.execute("SELECT number, line FROM head ORDER BY number")
        yield ((number, decode_entry(line)) for number, line in rows)


class _Replaying:
    """A TreeSink that passes on the content of the final files, under their final names."""

    def __init__(self, heads: Iterator[tuple[int, Entry]], add: Add) -> None:
        self._heads = heads
        self._next = next(heads, None)
        self._add = add
        self._number = 0

    def add(self, entry: Entry, content: Content = ()) -> None:
        if entry.type is not EntryType.FILE:
            return
        self._number += 1
        if self._next is None or self._next[0] != self._number:
            return
        head = self._next[1]
        if entry.size != head.size:
            raise _changed(head.path)
        self._add(head, _checked(content, head))
        self._next = next(self._heads, None)

    def finish(self) -> None:
        """Do nothing."""

    def check_complete(self, digest: str) -> None:
        if self._next is not None:
            raise _changed(f"{self._next[1].path} of layer {digest}")


def _checked(content: Content, head: Entry) -> Iterator[bytes | memoryview | Hole]:
    hashed = ContentHash()
    for piece in content:
        hashed.update(piece)
        yield piece
    if hashed.hexdigest() != head.sha256:
        raise _changed(head.path)


def _changed(path: str) -> LayerError:
    return LayerError(
        f"cannot send {path}",
        why="the staged blob and the layer's index do not agree",
        hint="remove the staged layer: the next ingest downloads it again",
    )


class _Nowhere(io.RawIOBase):
    """Discards the index that unpacking writes again."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return len(memoryview(cast(bytes, data)))
