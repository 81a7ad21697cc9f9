"""Convert one entry to the bytes of its tar header. Pure.

The format is that of GNU tar, in which long names are bytes. A reader of PAX converts names from
UTF-8 to the character set of the server's locale, and fails if that is not possible. Source: the
GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

from publisher.entry import Entry, EntryType

BLOCK = 512
END = bytes(2 * BLOCK)

_TYPEFLAGS = {
    EntryType.FILE: b"0",
    EntryType.HARDLINK: b"1",
    EntryType.SYMLINK: b"2",
    EntryType.CHARACTER_DEVICE: b"3",
    EntryType.WHITEOUT: b"3",
    EntryType.BLOCK_DEVICE: b"4",
    EntryType.DIRECTORY: b"5",
    EntryType.FIFO: b"6",
}
_LONG_NAME = b"././@LongLink"
_NANOSECONDS = 1_000_000_000
_SPARSE = b"S"
_REST = 167
"""The bytes of a header after the device numbers; for a sparse file, the beginning of its map."""

_BEFORE_MAP = 41
_REGIONS_IN_HEADER = 4
_REGIONS_IN_BLOCK = 21


def encode(entry: Entry) -> bytes:
    """Return the headers of the long names of `entry`, and its own. Times are in seconds."""
    size = entry.size if entry.type is EntryType.FILE else 0
    return _encode(entry, _TYPEFLAGS[entry.type], size, bytes(_REST))


def encode_sparse(entry: Entry, regions: Sequence[tuple[int, int]]) -> bytes:
    """Return the header of a sparse file, with the map of its stored regions.

    `regions` are (offset, length) in bytes, in order; their content follows the header, without
    the holes between them. Source: the GNU tar manual, "Storing Sparse Files", old GNU format.
    """
    first, others = regions[:_REGIONS_IN_HEADER], regions[_REGIONS_IN_HEADER:]
    fields = _map(first, _REGIONS_IN_HEADER) + bytes([bool(others)]) + _number(entry.size, 12)
    rest = (bytes(_BEFORE_MAP) + fields).ljust(_REST, b"\0")
    blocks = [_encode(entry, _SPARSE, sum(length for _, length in regions), rest)]
    while others:
        part, others = others[:_REGIONS_IN_BLOCK], others[_REGIONS_IN_BLOCK:]
        block = _map(part, _REGIONS_IN_BLOCK) + bytes([bool(others)])
        blocks.append(block.ljust(BLOCK, b"\0"))
    return b"".join(blocks)


def encode_attributes(attributes: Mapping[str, bytes]) -> bytes:
    """Return the header that gives the next entry these extended attributes; b"" for none.

    It is one of PAX, with the records `SCHILY.xattr.*` of star, whose values may be any bytes.
    """
    content = b"".join(
        _record(f"SCHILY.xattr.{name}".encode("utf-8", "surrogateescape"), value)
        for name, value in sorted(attributes.items())
    )
    if not content:
        return b""
    header = _encode(Entry("attributes", EntryType.FILE), b"x", len(content), bytes(_REST))
    return header + content + padding(len(content))


def _record(key: bytes, value: bytes) -> bytes:
    """Return a record of PAX, which begins with its own length."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def _map(regions: Sequence[tuple[int, int]], places: int) -> bytes:
    data = b"".join(_number(number, 12) for region in regions for number in region)
    return data.ljust(24 * places, b"\0")


def _encode(entry: Entry, typeflag: bytes, size: int, rest: bytes) -> bytes:
    name = entry.path.encode("utf-8", "surrogateescape")
    target = entry.target.encode("utf-8", "surrogateescape")
    before = b""
    if len(target) > 100:
        before += _long(b"K", target)
    if len(name) > 100:
        before += _long(b"L", name)
    mode = 0o777 if entry.type is EntryType.SYMLINK else entry.mode
    device = entry.device if entry.type is not EntryType.WHITEOUT else None
    fields = [
        name[:100].ljust(100, b"\0"),
        _number(mode, 8),
        _number(entry.uid, 8),
        _number(entry.gid, 8),
        _number(size, 12),
        _number(entry.mtime_ns // _NANOSECONDS, 12),
        b" " * 8,
        typeflag,
        target[:100].ljust(100, b"\0"),
        b"ustar  \0",
        bytes(64),
        _number(device[0] if device else 0, 8),
        _number(device[1] if device else 0, 8),
        rest,
    ]
    return before + _with_checksum(b"".join(fields))


def padding(size: int) -> bytes:
    """Return the bytes between a file's content of `size` bytes and the next header."""
    return bytes(-size % BLOCK)


def _long(flag: bytes, text: bytes) -> bytes:
    content = text + b"\0"
    fields = [
        _LONG_NAME.ljust(100, b"\0"),
        _number(0o644, 8),
        _number(0, 8),
        _number(0, 8),
        _number(len(content), 12),
        _number(0, 12),
        b" " * 8,
        flag,
        bytes(100),
        b"ustar  \0",
        bytes(247),
    ]
    return _with_checksum(b"".join(fields)) + content + padding(len(content))


@lru_cache(maxsize=4096)  # most entries of a layer have the same modes, owners and devices
def _number(value: int, width: int) -> bytes:
    """Return `value` in octal if it fits, else in base 256."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    limit = 1 << (8 * width - 2)
    data = max(-limit, min(value, limit - 1)).to_bytes(width, "big", signed=True)
    return bytes([data[0] | 0x80]) + data[1:]


def _with_checksum(header: bytes) -> bytes:
    # The lower half of Adler-32 is 1 + the sum of all bytes, modulo 65521, which half a header does
    # not reach. It is ten times faster than sum().
    total = (zlib.adler32(header[:256]) & 0xFFFF) + (zlib.adler32(header[256:]) & 0xFFFF) - 2
    return header[:148] + b"%06o\0 " % total + header[156:]
