"""A layer read again, from its kept blob and its index: final entries, in an order fit to be sent.

Unpacking takes entries in the archive's order: directories after their children, duplicates, files
that a later member replaces. A stream cannot take back what was sent. Since the index contains the
result, a second pass over the blob can send directories first, from the index; then the content of
files that are part of the result, in the archive's order; then links and everything else that has
no content.
"""

from __future__ import annotations

import heapq
import io
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
_HEADS = "CREATE TABLE head (number INTEGER PRIMARY KEY, line TEXT);"
_UNLIMITED = Policy(limits=Limits(*[2**62] * len(fields(Limits))))
"""The repository's limits were applied when the layer was first unpacked."""

Add = Callable[[Entry, Content], None]
Borrow = Callable[[Fixup], None]


class FileOrder:
    """A TreeSink that writes nothing, and notes in `file` which content each name ended up with.

    The first content of the archive has number 1. Nothing grows in memory.
    """

    def __init__(self, file: Path) -> None:
        self._database = temporary_database(_ORDER, file)
        self._execute = self._database.execute
        self._number = 0

    def add(self, entry: Entry, content: Content = ()) -> None:
        """Note `entry`; its content is left to whoever hashes it."""
        if entry.type is EntryType.FILE:
            self._number += 1
            self._note(entry.path, self._number)
        elif entry.type is EntryType.HARDLINK:
            number = self.number(entry.target)
            if number is not None:
                self._note(entry.path, number)

    def finish(self) -> None:
        """Everything is noted."""
        self._execute("COMMIT")
        self._execute("BEGIN")

    def close(self) -> None:
        """Let go of the file. More than once does no harm."""
        self._database.close()

    def number(self, path: str) -> int | None:
        """Which content the name `path` was given last; None for what is no file."""
        row = self._execute("SELECT number FROM file WHERE key = ?", (sort_key(path),)).fetchone()
        return None if row is None else int(row[0])

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
    """Give the layer's final entries to `add`, each once, directories before what is in them.

    `chunks` is the blob again, of which `order` was recorded; digest, size and diff ID are checked
    again, and each file's content against the index. `fixups` (sorted) is what the layers below
    make necessary: `borrow` is given what has to be taken from one of them. Raises LayerError or
    DigestMismatch if the blob is not what it was.
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
    """What the tree has in the end: the index, as `fixups` change it; sorted.

    The fixup is given where the entry's content lies in a lower layer.
    """
    own = ((sort_key(entry.path), 0, entry, None) for entry in _meant(layer))
    needed = ((sort_key(f.entry.path), 1, f.entry, f) for f in fixups)
    merged = heapq.merge(own, needed, key=itemgetter(0, 1))
    for _, group in groupby(merged, itemgetter(0)):
        *_, (_, _, entry, fixup) = group
        yield entry, fixup if fixup is not None and fixup.layer is not None else None


def _meant(layer: LayerIndex) -> Iterator[Entry]:
    """The entries that the tree has by itself; what hides something is left to the fixups.

    Left out are whiteouts in place of devices, and those below opaque directories; and links whose
    target only lower layers have.
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
    """The number and the entry of each file of the index, in the order of their content."""
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
    """Passes on the content of those files that are there in the end, under their final names."""

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
        """Nothing is left to be done."""

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
        why="the kept blob and the layer's index do not agree",
        hint="remove what is kept of the layer; it is then fetched anew",
    )


class _Nowhere(io.RawIOBase):
    """Takes the index that is written once more, which we have."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return len(memoryview(cast(bytes, data)))
