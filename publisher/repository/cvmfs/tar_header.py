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
_MAGIC = b"ustar  \0"
_CHECKSUM_SPACES = sum(b" " * 8)
_NANOSECONDS = 1_000_000_000
_SPARSE = b"S"
_REST = 167
"""The bytes of a header after the device numbers; for a sparse file, the beginning of its map."""

_NOTHING = bytes(_REST)
_BEFORE_MAP = 41
_REGIONS_IN_HEADER = 4
_REGIONS_IN_BLOCK = 21


def encode(entry: Entry, path: str | None = None, target: str | None = None) -> bytes:
    """Return the headers of the long names of `entry`, and its own. Times are in seconds.

    If they are given, `path` and `target` are used in place of those of `entry`.
    """
    size = entry.size if entry.type is EntryType.FILE else 0
    path = entry.path if path is None else path
    target = entry.target if target is None else target
    return _encode(entry, path, target, _TYPEFLAGS[entry.type], size)


def encode_sparse(
    entry: Entry, regions: Sequence[tuple[int, int]], path: str | None = None
) -> bytes:
    """Return the header of a sparse file, with the map of its stored regions.

    `regions` are (offset, length) in bytes, in order; their content follows the header, without
    the holes between them. If it is given, `path` is used in place of that of `entry`. Source: the
    GNU tar manual, "Storing Sparse Files", old GNU format.
    """
    first, others = regions[:_REGIONS_IN_HEADER], regions[_REGIONS_IN_HEADER:]
    fields = _map(first, _REGIONS_IN_HEADER) + bytes([bool(others)]) + _number(entry.size, 12)
    rest = (bytes(_BEFORE_MAP) + fields).ljust(_REST, b"\0")
    path = entry.path if path is None else path
    stored = sum(length for _, length in regions)
    blocks = [_encode(entry, path, "", _SPARSE, stored, rest)]
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
    name = "attributes"
    header = _encode(Entry(name, EntryType.FILE), name, "", b"x", len(content))
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


def _encode(
    entry: Entry, path: str, target: str, typeflag: bytes, size: int, rest: bytes = _NOTHING
) -> bytes:
    name = path.encode("utf-8", "surrogateescape")
    link = target.encode("utf-8", "surrogateescape")
    before = b""
    if len(link) > 100:
        before += _long(b"K", link)
    if len(name) > 100:
        before += _long(b"L", name)
    mode = 0o777 if entry.type is EntryType.SYMLINK else entry.mode
    device = entry.device if entry.type is not EntryType.WHITEOUT else None
    owner = _mode_and_owner(mode, entry.uid, entry.gid)
    end = _end(typeflag, link[:100], device or (0, 0), rest)
    return before + _header(name[:100], owner, size, entry.mtime_ns // _NANOSECONDS, end)


def padding(size: int) -> bytes:
    """Return the bytes between a file's content of `size` bytes and the next header."""
    return bytes(-size % BLOCK)


def _long(flag: bytes, text: bytes) -> bytes:
    size = len(text) + 1
    return _long_header(flag, size) + text.ljust(size + -size % BLOCK, b"\0")


@lru_cache(maxsize=1024)  # the names of a layer have few lengths
def _long_header(flag: bytes, size: int) -> bytes:
    """Return the header before a name of `size` bytes, of which the last one is zero."""
    rest = flag + bytes(100) + _MAGIC + bytes(247)
    return _header(_LONG_NAME, _mode_and_owner(0o644, 0, 0), size, 0, (rest, sum(rest)))


# Most entries of a layer have the same properties.
@lru_cache(maxsize=1024)
def _mode_and_owner(mode: int, uid: int, gid: int) -> bytes:
    return _number(mode, 8) + _number(uid, 8) + _number(gid, 8)


@lru_cache(maxsize=256)
def _end(typeflag: bytes, link: bytes, device: tuple[int, int], rest: bytes) -> tuple[bytes, int]:
    """Return what follows the checksum in a header, and the sum of its bytes."""
    numbers = _number(device[0], 8) + _number(device[1], 8)
    end = typeflag + link.ljust(100, b"\0") + _MAGIC + bytes(64) + numbers + rest
    return end, sum(end)


@lru_cache(maxsize=4096)
def _number(value: int, width: int) -> bytes:
    """Return `value` in octal if it fits, else in base 256."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    limit = 1 << (8 * width - 2)
    data = max(-limit, min(value, limit - 1)).to_bytes(width, "big", signed=True)
    return bytes([data[0] | 0x80]) + data[1:]


def _header(name: bytes, owner: bytes, size: int, mtime: int, end: tuple[bytes, int]) -> bytes:
    """Return a header with its checksum; `end` is what follows that, and its sum."""
    start = name.ljust(100, b"\0") + owner + _number(size, 12) + _number(mtime, 12)
    # The lower half of Adler-32 is 1 + the sum of all bytes, modulo 65521, which these few bytes do
    # not reach. It is ten times faster than sum().
    total = (zlib.adler32(start) & 0xFFFF) - 1 + _CHECKSUM_SPACES + end[1]
    return b"%b%06o\0 %b" % (start, total, end[0])
