"""The layer index: all entries of one layer in a compressed file; see layout/index.md.

It is a zstd stream of JSON lines: a header, then one line for each path, sorted component-wise.
Fields with their default value are omitted. The index is read and written as a stream.
"""

from __future__ import annotations

import io
import itertools
import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, field
from typing import Annotated, BinaryIO, cast

import zstandard

from publisher.codec import Check, Codec, Malformed, UnknownVersion, load_object
from publisher.entry import Entry, sort_key
from publisher.layers.errors import LayerError
from publisher.layers.index_lines import (
    LARGEST,
    Row,
    decode_entry,
    names_of_files,
    opaque_in,
    path_key,
    rows_in,
    special_in,
)
from publisher.lazy import dataclass
from publisher.oci.digest import is_digest

FORMAT = "publisher-layer-index"
VERSION = 1

_LEVEL = 3
_WRITE_BYTES = 512 * 1024
_READ_BYTES = 128 * 1024
_HEADER_BYTES = 16 * 1024
_LONGEST_LINE = 16 * 2**20
_Digest = Annotated[str, Check(is_digest, "is not a digest")]
_Count = Annotated[
    int,
    Check(lambda number: number >= 0, "is negative"),
    Check(lambda number: number <= LARGEST, "is too large"),
]


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """The first line of an index, with the properties of the whole layer.

    `digest` and `size` (bytes) are the blob's, `diff_id` and `archive_size` (bytes) the archive's.
    `entries` counts the lines that follow. `content_size` (bytes) is the size of all files
    together, of which `holes` (bytes) are holes of sparse files, which take no space. `unresolved`
    counts hard links whose target lies in a lower layer. `dropped` counts what policy removed, and
    `policy` is that policy. `files` counts the names of files, also those that hard links are; it
    is None in an index of an earlier release.
    """

    digest: _Digest
    diff_id: _Digest
    size: _Count
    archive_size: _Count
    entries: _Count
    content_size: _Count
    unresolved: _Count = 0
    dropped: Mapping[str, _Count] = field(default_factory=dict)
    policy: Mapping[str, object] = field(default_factory=dict)
    holes: _Count = 0
    files: _Count | None = None

    @property
    def stored_size(self) -> int:
        """The bytes that the layer's files take in a tree."""
        return self.content_size - self.holes


_HEADER = Codec(IndexHeader, version=VERSION, naming=lambda name: name)


class LayerIndex(Iterable[Entry]):
    """The entries of one index, sorted, decoded while they are iterated.

    Each iteration calls `open_file` and reads from the beginning; a LayerIndex keeps no file open.
    All methods raise LayerError for a damaged or truncated index, and the errors of `open_file`.
    With `digest`, so they do for the index of another layer.
    """

    def __init__(
        self, open_file: Callable[[], AbstractContextManager[BinaryIO]], digest: str = ""
    ) -> None:
        self._open = open_file
        self._digest = digest
        self._header: IndexHeader | None = None

    @property
    def header(self) -> IndexHeader:
        """The first line of the index."""
        # Not a cached_property: before Python 3.12 it holds one lock for all indexes, and a thread
        # that waits in `open_file` for the end of a publication would block the publication.
        if self._header is None:
            with self._open() as file:
                self._header = read_header(file, self._digest)
        return self._header

    def __iter__(self) -> Iterator[Entry]:
        return map(decode_entry, self.lines())

    def lines(self) -> Iterator[str]:
        """Yield the encoded entries, for `path_key` and `decode_entry`."""
        for block in self.blocks():
            lines = block.split("\n")
            lines.pop()  # the empty string after the last newline
            yield from lines

    def rows(self) -> Iterator[Row]:
        """Yield what counting needs of each entry, in a fraction of the time of decoding them."""
        for block in self.blocks():
            yield from rows_in(block)

    def files(self) -> int:
        """Return the number of names of files, also those that hard links are, as read."""
        return sum(map(names_of_files, self.blocks()))

    def blocks(self) -> Iterator[str]:
        """Yield the encoded entries as blocks of whole lines, each with its newline."""
        with self._open() as file:
            blocks = _blocks(file, _READ_BYTES, self._digest)
            first, _, rest = next(blocks, "").partition("\n")
            header = _parse_header(first, self._digest)
            count = 0
            for block in itertools.chain([rest] if rest else (), blocks):
                count += block.count("\n")
                yield block
                if count > header.entries:  # an index may hardly end
                    break
        _check_complete(header, count)

    def opaque_directories(self) -> Iterator[Entry]:
        """Yield the entries of opaque directories, without decoding others."""
        with self._open() as file:
            for block in _blocks(file, _READ_BYTES):
                yield from opaque_in(block)

    def special(self) -> Iterator[Entry]:
        """Yield the entries that depend on lower layers, or hide some, and perhaps further ones.

        These are opaque and implicit directories, entries of which something was dropped, and hard
        links whose target is in no entry before. Others are hardly decoded.
        """
        for block in self.blocks():
            yield from special_in(block)

    def find(self, paths: Collection[str]) -> list[Entry]:
        """Return the entries of those of `paths` that the index has, sorted.

        Only blocks of the index that can contain one of them are decoded. Finding one path among a
        million takes little longer than decompressing the index.
        """
        wanted = deque(sorted({sort_key(path) for path in paths}))
        found: list[Entry] = []
        with self._open() as file:
            blocks = _blocks(file, _READ_BYTES, self._digest)
            first, _, rest = next(blocks, "").partition("\n")
            header = _parse_header(first, self._digest)
            count = 0
            filled = filter(None, itertools.chain([rest], blocks))
            held = next(filled, "")
            while wanted and held and count <= header.entries:
                count += held.count("\n")
                following = next(filled, "")
                end = path_key(following.partition("\n")[0]) if following else None
                if end is None or wanted[0] < end:
                    here = {key for key in wanted if end is None or key < end}
                    lines = held.split("\n")[:-1]
                    found += [decode_entry(line) for line in lines if path_key(line) in here]
                while wanted and end is not None and wanted[0] < end:
                    wanted.popleft()
                held = following
        if wanted:  # the index was read to its end
            _check_complete(header, count)
        return found


def _check_complete(header: IndexHeader, count: int) -> None:
    if count != header.entries:
        raise LayerError(
            f"cannot read the index of layer {header.digest}",
            why=f"it has {count} of {header.entries} entries",
        )


def read_header(file: BinaryIO, digest: str = "") -> IndexHeader:
    """Return the header of the index in `file`.

    Raises LayerError if that is not an index, or not the one of the layer `digest`, if given.
    """
    return _parse_header(next(_blocks(file, _HEADER_BYTES, digest), "").partition("\n")[0], digest)


def read_index(file: BinaryIO) -> LayerIndex:
    """Return the index in `file`, which must stay open. Iterations of it may overlap."""
    index = LayerIndex(lambda: nullcontext(cast(BinaryIO, _Position(file))))
    _ = index.header  # refuses a file that is not an index
    return index


def write_index(file: BinaryIO, header: IndexHeader, lines: Iterable[str]) -> None:
    """Write an index of `header` and the encoded entries `lines`, which must be sorted."""
    with zstandard.ZstdCompressor(level=_LEVEL).stream_writer(file, closefd=False) as writer:
        first = {"format": FORMAT, "version": VERSION} | asdict(header)
        if not header.holes:
            del first["holes"]
        if header.files is None:
            del first["files"]
        held = [json.dumps(first, sort_keys=False, separators=(",", ":"))]
        size = 0
        for line in lines:
            held.append(line)
            size += len(line)
            if size >= _WRITE_BYTES:
                held.append("")
                writer.write("\n".join(held).encode("ascii"))
                held.clear()
                size = 0
        held.append("")
        writer.write("\n".join(held).encode("ascii"))
    file.flush()


def _parse_header(line: str, digest: str) -> IndexHeader:
    what = _what(digest)
    try:
        fields = load_object(line)
    except Malformed as error:
        raise LayerError(what, why="the file is not a layer index") from error
    if fields.pop("format", None) != FORMAT:
        raise LayerError(what, why="the file is not a layer index")
    version = fields.get("version")
    try:
        header = _HEADER.from_object(fields)
    except UnknownVersion as error:
        raise LayerError(
            what,
            why=f"it has version {version}, and only {VERSION} is known",
            hint="use a newer publisher",
        ) from error
    except Malformed as error:
        raise LayerError(what, why=f"its header is malformed: {error}") from error
    if digest not in ("", header.digest):
        raise LayerError(what, why=f"it is the index of layer {header.digest}")
    return header


class _Position(io.RawIOBase):
    """Reads `file` from its beginning, with its own position.

    An image may have one layer twice, so that its index is read at two positions at once.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._at)
        data = self._file.read(size)
        self._at += len(data)
        return data


def _what(digest: str) -> str:
    return f"cannot read the index of layer {digest}" if digest else "cannot read a layer index"


def _blocks(file: BinaryIO, size: int, digest: str = "") -> Iterator[str]:
    """Yield the text of the index as blocks of whole lines, of about `size` bytes."""
    what = _what(digest)
    reader = zstandard.ZstdDecompressor().stream_reader(file, read_size=size, closefd=False)
    rest = b""
    try:
        while data := reader.read(size):
            end = data.rfind(b"\n") + 1
            if end:
                yield (rest + data[:end]).decode("utf-8")
                rest = data[end:]
            else:
                rest += data
            if len(rest) > _LONGEST_LINE:
                raise LayerError(what, why="a line is too long")
        rest.decode("utf-8")
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise LayerError(what, why=f"it is damaged: {error}") from error
    if rest:
        raise LayerError(what, why="it ends within a line")
