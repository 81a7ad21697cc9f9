"""The layer index: everything in one layer, as one compressed file. The format is layout/index.md.

A zstd stream of JSON lines: a header, then one line for each path, sorted component-wise. Fields
that say nothing new are left out. Reading and writing stream.
"""

from __future__ import annotations

import base64
import codecs
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from json.encoder import encode_basestring_ascii
from typing import Any, BinaryIO, cast

import zstandard

from publisher.entry import Entry, EntryType
from publisher.layers.errors import LayerError

FORMAT = "publisher-layer-index"
VERSION = 1

_LEVEL = 3
_WRITE_BYTES = 512 * 1024
_READ_BYTES = 256 * 1024
_LONGEST_LINE = 16 * 2**20
_TYPES = {kind.value: kind for kind in EntryType}
_DECODE = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """What the index says of its layer as a whole.

    `digest` and `size` (bytes) are the blob's, `diff_id` and `archive_size` (bytes) the archive's.
    `entries` counts the lines that follow, `content_size` (bytes) what all files hold together.
    `unresolved` counts hard links whose target lies in a lower layer. `dropped` counts what policy
    took away, and `policy` is that policy.
    """

    digest: str
    diff_id: str
    size: int
    archive_size: int
    entries: int
    content_size: int
    unresolved: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)


class LayerIndex(Iterable[Entry]):
    """An index in a file that can be read again and again, one iteration after the other.

    Iterating raises LayerError for an index that is damaged or cut off.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.header = read_header(file)

    def __iter__(self) -> Iterator[Entry]:
        lines = _lines(self._file)
        header = _parse_header(next(lines, ""))
        count = 0
        for line in lines:
            count += 1
            yield decode_entry(line)
        if count != header.entries:
            raise LayerError(
                f"cannot read the index of layer {header.digest}",
                why=f"it has {count} of {header.entries} entries",
            )


def read_header(file: BinaryIO) -> IndexHeader:
    """The header of the index in `file`."""
    return _parse_header(next(_lines(file), ""))


def read_index(file: BinaryIO) -> LayerIndex:
    """The entries of the index in `file`, sorted; they are read while they are asked for.

    The result can be iterated again, which starts over; `file` has to stay open.
    """
    return LayerIndex(file)


def write_index(file: BinaryIO, header: IndexHeader, lines: Iterable[str]) -> None:
    """Write `header` and the encoded entries `lines`, in the order in which they come."""
    with zstandard.ZstdCompressor(level=_LEVEL).stream_writer(file, closefd=False) as writer:
        first = {"format": FORMAT, "version": VERSION} | asdict(header)
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
    """The line for `entry`, without a newline."""
    return f"{entry_start(entry.path, entry.type)}{encode_details(entry)}}}"


def entry_start(path: str, kind: str) -> str:
    """The beginning of a line, to be followed by details and a closing brace."""
    return f'{{"path":{encode_basestring_ascii(path)},"type":"{kind}"'


def encode_details(entry: Entry) -> str:
    """Everything of an entry's line but path and type; empty, or beginning with a comma."""
    kind = entry.type
    if kind is EntryType.FILE and not (entry.xattrs or entry.dropped) and entry.links == 1:
        return (  # most lines of most layers
            f',"mode":"{entry.mode:04o}","uid":{entry.uid},"gid":{entry.gid},"size":{entry.size},'
            f'"mtime_ns":{entry.mtime_ns},"sha256":"{entry.sha256}"'
        )
    fields: dict[str, Any] = {}
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
            k: base64.b64encode(v).decode() for k, v in sorted(entry.xattrs.items())
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


def decode_entry(line: str) -> Entry:
    """The entry that `line` encodes; LayerError if it does not."""
    try:
        fields, end = _DECODE(line)  # json.loads costs twice as much
        if end != len(line):
            raise ValueError("something follows the object")
        xattrs = fields.get("xattrs")
        device = fields.get("device")
        return Entry(
            fields["path"],
            _TYPES[fields["type"]],
            int(fields.get("mode", "0"), 8),
            fields.get("uid", 0),
            fields.get("gid", 0),
            fields.get("size", 0),
            fields.get("mtime_ns", 0),
            fields.get("target", ""),
            fields.get("sha256", ""),
            (device[0], device[1]) if device else None,
            {k: base64.b64decode(v) for k, v in xattrs.items()} if xattrs else {},
            fields.get("opaque", False),
            fields.get("implicit", False),
            tuple(fields.get("dropped", ())),
            fields.get("links", 1),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LayerError(
            "cannot read a layer index", why=f"a line is malformed: {error}"
        ) from error


def _parse_header(line: str) -> IndexHeader:
    what = "cannot read a layer index"
    try:
        fields = json.loads(line)
        if fields.pop("format") != FORMAT:
            raise LayerError(what, why="the file is something else")
        version = fields.pop("version")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise LayerError(what, why="the file is something else") from error
    if version != VERSION:
        raise LayerError(
            what, why=f"it has version {version}, we know {VERSION}", hint="use a newer publisher"
        )
    known = set(IndexHeader.__dataclass_fields__)
    try:
        return IndexHeader(**{key: value for key, value in fields.items() if key in known})
    except TypeError as error:
        raise LayerError(what, why=f"its header is incomplete: {error}") from error


class _Position(io.RawIOBase):
    """Reads `file` from its beginning, with a position of its own.

    An image may list one layer twice; its index is then read at two places at once.
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


def _lines(file: BinaryIO) -> Iterator[str]:
    source = cast(BinaryIO, _Position(file))
    reader = zstandard.ZstdDecompressor().stream_reader(source, closefd=False)
    decoder = codecs.getincrementaldecoder("utf-8")()
    rest = ""
    try:
        while data := reader.read(_READ_BYTES):
            lines = (rest + decoder.decode(data)).split("\n")
            rest = lines.pop()
            if len(rest) > _LONGEST_LINE:
                raise LayerError("cannot read a layer index", why="a line is endless")
            yield from lines
        decoder.decode(b"", final=True)
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise LayerError("cannot read a layer index", why=f"it is damaged: {error}") from error
    if rest:
        raise LayerError("cannot read a layer index", why="it ends within a line")
