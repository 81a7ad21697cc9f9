"""Read a layer again from its blob and its index, in an order in which it can be sent.

In an archive, directories may follow their children, and a member may replace an earlier one. A
stream to the server must not contain entries that are replaced later. The index contains the final
entries, so that a second pass over the blob can send the directories first, from the index; then
the content of the final files, in the archive's order; then links and other entries without
content.

`read_contents` decompresses and parses the blob, here or in a worker process. `replay` uses nothing
of that but contents, whose sizes and digests it compares with the index.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from publisher.entry import Content, Entry, EntryType, Fixup, Hole, only_piece, sort_key
from publisher.layers.blob import BlobReader
from publisher.layers.content import ContentHash
from publisher.layers.errors import LayerError
from publisher.layers.index import LayerIndex, read_index
from publisher.layers.index_lines import decode_entry, is_file, path_key
from publisher.layers.names import reserved, safe_path
from publisher.layers.stream import ArchiveStream
from publisher.layers.tar import Member, members
from publisher.layers.temporary import temporary_database, temporary_databases
from publisher.lazy import dataclass

_ORDER = "CREATE TABLE IF NOT EXISTS file (key BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID;"
_ORDER_AS_STORED = _ORDER.replace("IF NOT EXISTS ", "").removesuffix(";")
_HEADS = "CREATE TABLE head (content INTEGER PRIMARY KEY, number INTEGER);"
_FILES = "CREATE TABLE file (number INTEGER PRIMARY KEY, line TEXT);"
_UNLIMITED = 2**62
"""No limits, since the repository's limits were applied when the layer was unpacked."""

_READ_BYTES = 1 << 20
_LATEST = 10_000
"""How many paths are in memory before they are written to the order of contents."""
_BYTES_IN_MEMORY = 16 * 2**20
"""The bytes of lines of an index that are in memory; the rest is in a database."""
_LINE_BYTES = 50
"""What a line takes in memory beside its text."""

Add = Callable[[Entry, Content], None]
Borrow = Callable[[Fixup], None]
Receive = Callable[[int, Content], None]
"""Receives the content of a file with its number: the files of an index are numbered from 0.

The content must be read at once.
"""


@dataclass(frozen=True, slots=True)
class StagedContents:
    """What the contents of a layer's files are read from again.

    `blob` is the blob, `index` the layer's index, and `order` the file of a `FileOrder` from the
    first time that the layer was unpacked. A reader may make `scratch`, a private directory on the
    same file system as `order`; the caller deletes it.
    """

    blob: Path
    index: Path
    order: Path
    scratch: Path


PassOn = Callable[[Receive], None]
"""Passes on the contents of all files of a layer, in the archive's order. It is called once."""

ReadContents = Callable[[StagedContents], AbstractContextManager[PassOn]]
"""Begins to read a layer again, perhaps before its contents are passed on."""


class FileOrder:
    """A TreeSink that records in `file` the number of the content of each file.

    The contents of an archive are numbered from 1. Memory is bounded.
    """

    def __init__(self, file: Path) -> None:
        self._database = temporary_database(_ORDER, file)
        self._execute = self._database.execute
        self._number = 0
        self._latest: dict[bytes, int] = {}

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
        self._write()
        self._execute("COMMIT")
        self._execute("BEGIN")

    def close(self) -> None:
        """Close the file. May be called more than once."""
        self._database.close()

    def number(self, path: str) -> int | None:
        """Return the number of the content of `path`; None if it is not a file."""
        key = sort_key(path)
        if key in self._latest:
            return self._latest[key]
        row = self._execute("SELECT number FROM file WHERE key = ?", (key,)).fetchone()
        return row[0] if row is not None and type(row[0]) is int else None

    def numbers(self, keys: Iterable[bytes]) -> Iterator[int | None]:
        """Yield the same for each of `keys`, which are sorted keys of paths. All is in the file."""
        rows = self._execute("SELECT key, number FROM file ORDER BY key")
        found: tuple[object, object] = b"", None
        for key in keys:
            while isinstance(found[0], bytes) and found[0] < key:
                found = next(rows, (None, None))
            yield found[1] if found[0] == key and type(found[1]) is int else None

    def _note(self, path: str, number: int) -> None:
        self._latest[sort_key(path)] = number
        if len(self._latest) >= _LATEST:
            self._write()

    def _write(self) -> None:
        written = sorted(self._latest.items())
        self._database.executemany("INSERT OR REPLACE INTO file VALUES (?, ?)", written)
        self._latest.clear()


def replay(
    index: BinaryIO,
    fixups: Iterable[Fixup],
    read: Callable[[Receive], None],
    add: Add,
    borrow: Borrow,
) -> None:
    """Pass each final entry of the layer to `add`, directories before their entries.

    All but the contents is taken from the index. `read` is not trusted: each file must be received
    once, with the size and digest that the index has.

    Args:
        index: The layer's index.
        fixups: The fixups of the layer, sorted.
        read: Passes on the contents of the layer's files.
        add: Receives an entry and its content, which it must read at once.
        borrow: Receives a fixup whose content is in a lower layer.

    Raises:
        LayerError: The contents do not agree with the index, or a temporary database cannot be
            stored.
        Exception: Whatever `read`, `add` and `borrow` raise.
    """
    layer = read_index(index)
    fixed = tuple(fixups)
    for entry, fixup in _final(layer, fixed):
        if entry.type is EntryType.DIRECTORY and fixup is None:
            add(entry, ())
    what = f"cannot send layer {layer.header.digest}"
    with temporary_databases(what), closing(_Files(layer)) as files:
        read(lambda number, content: add(*files.received(number, content)))
        files.require_all()
    for entry, fixup in _final(layer, fixed):
        if fixup is not None:
            borrow(fixup)
        elif entry.type is not EntryType.DIRECTORY:
            add(entry, ())


@contextmanager
def read_contents_here(staged: StagedContents) -> Iterator[PassOn]:
    """Read the contents of a staged layer in this process; see `read_contents`."""
    with staged.blob.open("rb") as blob, staged.index.open("rb") as index:
        yield partial(read_contents, blob, index, staged.order)


def read_contents(blob: BinaryIO, index: BinaryIO, order: Path, receive: Receive) -> None:
    """Pass on the contents of all files of a layer, in the archive's order.

    The digests of blob and archive are not computed again, since those of the contents are.

    Args:
        blob: The blob, as it was when `order` was recorded.
        index: The layer's index.
        order: The file of a `FileOrder` from the first time that the layer was unpacked.
        receive: Receives the contents.

    Raises:
        LayerError: Blob, index and order do not agree, or a temporary database cannot be stored.
        Exception: Whatever `receive` raises.
    """
    layer = read_index(index)
    header = layer.header
    with (
        temporary_databases(f"cannot send layer {header.digest}"),
        closing(FileOrder(order)) as numbers,
        _heads(layer, numbers) as heads,
    ):
        chunks = iter(lambda: blob.read(_READ_BYTES), b"")
        name = f"layer {header.digest}"
        with BlobReader(chunks, name, None, _UNLIMITED) as archive:
            if not _pass_on(_files(archive, name), heads, receive):
                raise _changed(f"all files of {name}")


def _files(archive: BlobReader, layer: str) -> Iterator[Member]:
    """Yield the files that unpacking passed to its sink, in the same order."""
    for member in members(ArchiveStream(archive.blocks()), layer, _UNLIMITED):
        if member.type is EntryType.FILE:
            path = safe_path(member.name, member.where, _UNLIMITED, _UNLIMITED)
            if reserved(path, member.where) is None:
                yield member


def _pass_on(files: Iterable[Member], heads: Iterator[tuple[int, int]], receive: Receive) -> bool:
    """Pass on the contents of those of `files` that are final; return whether all were there."""
    head = next(heads, None)
    for count, member in enumerate(files, 1):
        if head is not None and count == head[0]:
            receive(head[1], member.content)
            head = next(heads, None)
    return head is None


def _final(layer: LayerIndex, fixups: Iterable[Fixup]) -> Iterator[tuple[Entry, Fixup | None]]:
    """Yield the entries without content, sorted: those of the index with the changes of `fixups`.

    The second item is the fixup of an entry whose content is in a lower layer, else None.
    """
    own = ((sort_key(entry.path), 0, entry, None) for entry in _own(layer))
    needed = ((sort_key(f.entry.path), 1, f.entry, f) for f in fixups)
    merged = heapq.merge(own, needed, key=itemgetter(0, 1))
    for _, group in groupby(merged, itemgetter(0)):
        *_, (_, _, entry, fixup) = group
        yield entry, fixup if fixup is not None and fixup.layer is not None else None


def _own(layer: LayerIndex) -> Iterator[Entry]:
    """Yield the entries without content that do not depend on lower layers.

    These are all except whiteouts instead of devices or below opaque directories, and links whose
    target is in a lower layer. If such an entry is needed, there is a fixup.
    """
    hidden: str | None = None
    for entry in map(decode_entry, (line for line in layer.lines() if not is_file(line))):
        if entry.type is EntryType.FILE:  # it would be in neither part of the stream
            raise _changed(entry.path)
        if entry.opaque and not (hidden is not None and entry.path.startswith(hidden)):
            hidden = f"{entry.path}/" if entry.path else ""
        if entry.is_unresolved:
            continue
        if entry.type is EntryType.WHITEOUT:
            is_hidden = hidden is not None and entry.path.startswith(hidden)
            if is_hidden or entry.dropped:
                continue
        yield entry


class _Files:
    """The files of an index by their numbers, each of which is received once. Memory is bounded."""

    def __init__(self, layer: LayerIndex) -> None:
        self._digest = layer.header.digest
        self._database = temporary_database(_FILES)
        lines = (line for line in layer.lines() if is_file(line))
        self._first: list[str] = []
        size = 0
        for line in lines:
            self._first.append(line)
            size += len(line) + _LINE_BYTES
            if size > _BYTES_IN_MEMORY:
                break
        others = enumerate(lines, len(self._first))
        self._database.executemany("INSERT INTO file VALUES (?, ?)", others)
        [(count,)] = self._database.execute("SELECT count(*) FROM file")
        self._left = len(self._first) + int(count)
        self._is_received = bytearray(self._left)

    def close(self) -> None:
        """Delete the database."""
        self._database.close()

    def received(self, number: int, content: Content) -> tuple[Entry, Content]:
        """Return the file with this number, and its content, which is checked while it is read."""
        is_file_number = 0 <= number < len(self._is_received)
        if not is_file_number or self._is_received[number]:
            raise _changed(f"the files of layer {self._digest}")
        self._is_received[number] = True
        self._left -= 1
        if number < len(self._first):
            line = self._first[number]
        else:
            query = "SELECT line FROM file WHERE number = ?"
            [line] = self._database.execute(query, (number,)).fetchone()
        entry = decode_entry(line)
        if entry.type is not EntryType.FILE:
            raise _changed(entry.path)
        data = only_piece(content)
        if data is not None:
            if len(data) != entry.size or sha256(data).hexdigest() != entry.sha256:
                raise _changed(entry.path)
            return entry, content
        return entry, _checked(content, entry)

    def require_all(self) -> None:
        """Raise LayerError unless all files were received."""
        if self._left:
            raise _changed(f"all files of layer {self._digest}")


def _checked(content: Content, entry: Entry) -> Iterator[bytes | memoryview | Hole]:
    hashed = ContentHash()
    size = 0
    for piece in content:
        size += piece.size if isinstance(piece, Hole) else len(piece)
        if size > entry.size:  # before the zeros of a hole are hashed
            raise _changed(entry.path)
        hashed.update(piece)
        yield piece
    if size != entry.size or hashed.hexdigest() != entry.sha256:
        raise _changed(entry.path)


@contextmanager
def _heads(layer: LayerIndex, order: FileOrder) -> Iterator[Iterator[tuple[int, int]]]:
    """Open an iterator over the final files: numbers in the archive and in the index, sorted."""
    order.check()
    with closing(temporary_database(_HEADS)) as database:
        database.executemany("INSERT INTO head VALUES (?, ?)", _numbers(layer, order))
        yield database.execute("SELECT content, number FROM head ORDER BY content")


def _numbers(layer: LayerIndex, order: FileOrder) -> Iterator[tuple[int, int]]:
    """Yield the numbers of each file in the archive and in the index."""
    keys = (path_key(line) for line in layer.lines() if is_file(line))
    for number, content in enumerate(order.numbers(keys)):
        if content is None:
            raise _changed(f"the files of layer {layer.header.digest}")
        yield content, number


def _changed(path: str) -> LayerError:
    return LayerError(
        f"cannot send {path}",
        why="the staged blob and the layer's index do not agree",
        hint="remove the staged layer: the next ingest downloads it again",
    )
