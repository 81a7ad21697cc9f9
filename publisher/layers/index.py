"""The layer index: all entries of one layer in a compressed file; see layout/index.md.

It is a zstd stream of JSON lines: a header, then one line for each path, sorted component-wise.
Fields with their default value are omitted. The index is read and written as a stream.
"""

from __future__ import annotations

import binascii
import io
import itertools
import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, field
from json.encoder import encode_basestring_ascii
from typing import Annotated, BinaryIO, cast

import zstandard

from publisher.codec import Check, Codec, Malformed, UnknownVersion, load_object
from publisher.entry import Entry, EntryType, sort_key
from publisher.layers.errors import LayerError
from publisher.lazy import dataclass, pattern
from publisher.oci.digest import is_digest

FORMAT = "publisher-layer-index"
VERSION = 1

_LEVEL = 3
_WRITE_BYTES = 512 * 1024
_READ_BYTES = 128 * 1024
_HEADER_BYTES = 16 * 1024
_LONGEST_LINE = 16 * 2**20
_OPAQUE = '"opaque":true'
_SPECIAL = pattern(r'"(?:opaque|implicit|dropped)":|"type":"h"')
_FILE, _HARDLINK = '","type":"f"', '","type":"h"'
_ROW = pattern(
    r'^\{"path":"([^"\\\n]*)","type":"([fdl])","mode":"[0-7]{1,4}","uid":[0-9]+,"gid":[0-9]+,'
    r'(?:"size":([0-9]{1,18}),)?"mtime_ns":-?[0-9]+'
    r'(?:,"sha256":"([0-9a-f]{64})"|,"target":"([^"\\\n]*)")?(?:,"implicit":true)?\}$',
    re.MULTILINE,
)
"""A line without any of the rare fields, and with a path and target in ASCII."""
_PATH_START, _PATH_END = '{"path":"', '","type":'
_TYPES = {kind.value: kind for kind in EntryType}
_DECODE = vars(json.JSONDecoder())["scan_once"]
_MALFORMED = (
    *(ValueError, KeyError, TypeError, AttributeError, RecursionError),
    StopIteration,  # no JSON value
)
_Digest = Annotated[str, Check(is_digest, "is not a digest")]
_LARGEST = 2**63 - 1
"""The largest size and number in an index: the largest size of a file."""
_Count = Annotated[
    int,
    Check(lambda number: number >= 0, "is negative"),
    Check(lambda number: number <= _LARGEST, "is too large"),
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


Row = tuple[str, str, int, str, str, int, bool]
"""Path, type, size, SHA-256 digest, target, number of links, and whether it is opaque."""


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
            found = _ROW.findall(block)
            if len(found) == block.count("\n"):
                for path, kind, size, sha256, target in found:
                    yield path, kind, int(size or 0), sha256, target, 1, False
            else:
                yield from map(_row, block.split("\n")[:-1])

    def files(self) -> int:
        """Return the number of names of files, also those that hard links are, as read."""
        # A quote in a string is escaped, so that no path contains these texts.
        return sum(block.count(_FILE) + block.count(_HARDLINK) for block in self.blocks())

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
        # A quote in a string is escaped, so that no path contains the text.
        with self._open() as file:
            for block in _blocks(file, _READ_BYTES):
                if _OPAQUE in block:
                    lines = block.split("\n")
                    yield from (decode_entry(line) for line in lines if _OPAQUE in line)

    def special(self) -> Iterator[Entry]:
        """Yield the entries that depend on lower layers, or hide some, and perhaps further ones.

        These are opaque and implicit directories, entries of which something was dropped, and hard
        links whose target is in no entry before. Others are hardly decoded.
        """
        # A quote in a string is escaped, so that no path contains the texts.
        for block in self.blocks():
            if _SPECIAL.search(block):
                yield from map(decode_entry, filter(_SPECIAL.search, block.split("\n")))

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


def encode_entry(entry: Entry) -> str:
    """Return the line for `entry`, without a newline."""
    return f"{entry_start(entry.path, entry.type)}{encode_details(entry)}}}"


def entry_start(path: str, kind: str) -> str:
    """Return the beginning of a line, to be followed by details and a closing brace."""
    return f'{{"path":{encode_basestring_ascii(path)},"type":"{kind}"'


def encode_details(entry: Entry) -> str:
    """Return an entry's line without path and type; it is empty or begins with a comma."""
    kind = entry.type
    if kind is EntryType.FILE and not (entry.xattrs or entry.dropped) and entry.links == 1:
        return (  # the fast path for most entries
            f',"mode":"{entry.mode:04o}","uid":{entry.uid},"gid":{entry.gid},"size":{entry.size},'
            f'"mtime_ns":{entry.mtime_ns},"sha256":"{entry.sha256}"'
        )
    fields: dict[str, object] = {}
    if kind is not EntryType.WHITEOUT and not entry.is_unresolved:
        fields |= {"mode": f"{entry.mode:04o}", "uid": entry.uid, "gid": entry.gid}
        if kind in (EntryType.FILE, EntryType.HARDLINK):
            fields["size"] = entry.size
        fields["mtime_ns"] = entry.mtime_ns
    if entry.sha256:
        fields["sha256"] = entry.sha256
    if entry.target:
        fields["target"] = entry.target
    if entry.device is not None:
        fields["device"] = list(entry.device)
    if entry.xattrs:
        fields["xattrs"] = {
            name: binascii.b2a_base64(value, newline=False).decode()
            for name, value in sorted(entry.xattrs.items())
        }
    for flag in ("opaque", "implicit"):
        if getattr(entry, flag):
            fields[flag] = True
    if entry.links != 1:
        fields["links"] = entry.links
    if entry.dropped:
        fields["dropped"] = list(entry.dropped)
    text = json.dumps(fields, separators=(",", ":"))
    return f",{text[1:-1]}" if fields else ""


def _row(line: str) -> Row:
    found = _ROW.fullmatch(line)
    if found is not None:
        path, kind, size, sha256, target = found.groups(default="")
        return path, kind, int(size or 0), sha256, target, 1, False
    entry = decode_entry(line)
    return (
        *(entry.path, str(entry.type), entry.size, entry.sha256),
        *(entry.target, entry.links, entry.opaque),
    )


def path_key(line: str) -> bytes:
    """Return the `sort_key` of the path in `line` without decoding all of it.

    Raises LayerError for a malformed line.
    """
    # Quotes in a JSON string are escaped, so that the first `","type":` ends the path.
    end = line.find(_PATH_END, len(_PATH_START))
    if end > 0 and line.startswith(_PATH_START):
        path = line[len(_PATH_START) : end]
        if "\\" not in path:
            return path.encode("utf-8").replace(b"/", b"\0")
    try:
        return sort_key(decode_entry(line).path)
    except UnicodeEncodeError as error:  # a surrogate that is not an escaped byte
        raise LayerError(
            "cannot read a layer index", why=f"a line is malformed: {error}"
        ) from error


def is_file(line: str) -> bool:
    """Return whether `line` is that of a file, without decoding it. May be False in a later format.

    An index that another process wrote may have other fields in it: `decode_entry` decides.
    """
    return _FILE in line


def encoded_path(line: str) -> str:
    """Return the path in `line` as it is encoded; "" for a malformed line."""
    return line[len(_PATH_START) : max(line.find(_PATH_END, len(_PATH_START)), 0)]


def decode_entry(line: str) -> Entry:
    """Return the entry that `line` encodes. Raises LayerError for a malformed line."""
    try:
        fields, end = _DECODE(line, 0)  # json.loads takes twice as long
        if end != len(line):
            raise ValueError("other data follow the object")
        get = fields.get
        path = fields["path"]
        mode = int(get("mode", "0"), 8)
        uid = get("uid", 0)
        gid = get("gid", 0)
        size = get("size", 0)
        mtime_ns = get("mtime_ns", 0)
        target = get("target", "")
        sha256 = get("sha256", "")
        opaque = get("opaque", False)
        implicit = get("implicit", False)
        links = get("links", 1)
        # One expression without function calls; a codec would double the time of a merge.
        if not (
            type(path) is type(target) is type(sha256) is str
            and type(uid) is type(gid) is type(size) is type(mtime_ns) is type(links) is int
            and type(opaque) is type(implicit) is bool
            and uid >= 0 <= gid
            and 0 <= size <= _LARGEST
            and links >= 0
            and 0 <= mode <= 0o7777
        ):
            raise ValueError("a field has a wrong type, or is out of range")
        xattrs = get("xattrs")
        device = get("device")
        dropped = get("dropped")
        kind = _TYPES[fields["type"]]
        if "/." in path or "//" in path or "\0" in path or path[:1] in "/." or path[-1:] == "/":
            _check_path(path)
        if kind is EntryType.HARDLINK:
            _check_path(target)
        return Entry(
            path,
            kind,
            mode,
            uid,
            gid,
            size,
            mtime_ns,
            target,
            sha256,
            _device(device) if device is not None else None,
            {k: binascii.a2b_base64(v) for k, v in xattrs.items()} if xattrs is not None else {},
            opaque,
            implicit,
            _texts(dropped) if dropped is not None else (),
            links,
        )
    except _MALFORMED as error:
        why = "not JSON" if isinstance(error, StopIteration) else str(error)
        raise LayerError("cannot read a layer index", why=f"a line is malformed: {why}") from error


def _check_path(path: str) -> None:
    """Raise ValueError for a path that leads out of the tree, or is not normalized.

    An index may have been written by a process that a malicious layer had taken over.
    """
    if "\0" in path or (path and not {"", ".", ".."}.isdisjoint(path.split("/"))):
        raise ValueError("a path leads out of the tree, or is not normalized")


def _device(value: object) -> tuple[int, int]:
    if type(value) is not list or [type(number) for number in value] != [int, int]:
        raise ValueError("device is not a list of two integers")
    return value[0], value[1]


def _texts(value: object) -> tuple[str, ...]:
    if type(value) is not list or not all(type(text) is str for text in value):
        raise ValueError("dropped is not a list of strings")
    return tuple(value)


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
