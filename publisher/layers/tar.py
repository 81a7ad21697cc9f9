"""Read the members of a tar archive as a stream.

V7, ustar, PAX and GNU archives are supported, with the deviations of tools that build images.
Sources: POSIX pax(1), "ustar Interchange Format" and "pax Extended Header"; the GNU tar manual,
"Basic Tar Format" and "Storing Sparse Files". Ambiguous archives are read as by Go's archive/tar,
with which most images are built and tested: global extended headers are ignored; of several
extended headers before a member the last one is used; members other than files have no content,
also if their size field is not 0.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import lru_cache

from publisher.entry import Content, EntryType
from publisher.layers.errors import LayerError, LimitExceeded
from publisher.layers.headers import octal_or_binary, pax_number, pax_records, pax_time
from publisher.layers.names import Where
from publisher.layers.policy import NO_OWNER
from publisher.layers.sparse import SparseMap, gnu_map, pax_map, pax_map_in_content, with_holes
from publisher.layers.stream import ArchiveStream
from publisher.layers.tar_split import LOOK_BACK
from publisher.lazy import dataclass

BLOCK = 512
_ZERO_BLOCK = bytes(BLOCK)
_CHECKSUM_SPACES = sum(b" " * 8)
_ADLER_MODULUS = 65521
_ONE_PIECE = LOOK_BACK

_TYPES = {
    b"0": EntryType.FILE,
    b"\0": EntryType.FILE,
    b"7": EntryType.FILE,  # "contiguous", which readers may treat as a file (POSIX)
    b"S": EntryType.FILE,
    b"1": EntryType.HARDLINK,
    b"2": EntryType.SYMLINK,
    b"3": EntryType.CHARACTER_DEVICE,
    b"4": EntryType.BLOCK_DEVICE,
    b"5": EntryType.DIRECTORY,
    b"6": EntryType.FIFO,
}
_XATTR_PREFIX = "SCHILY.xattr."
_GNU_MAGIC = b"ustar  \0"


@dataclass(slots=True)
class Member:
    """One member as in the archive: no name or number has been checked for safety.

    `where` describes it in errors. `size` counts the bytes of `content`, of which `holes` are not
    stored. The content must be used before the next member is requested. `content_at` is where a
    file's content begins in the archive, if it is there as it is in the file.
    """

    where: Where
    name: bytes
    type: EntryType
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: bytes
    device: tuple[int, int] | None
    xattrs: dict[str, bytes]
    content: Content = ()
    holes: int = 0
    content_at: int | None = None


@dataclass(slots=True)
class _Extensions:
    """The content of extended headers, which belongs to the next member."""

    pax: dict[str, bytes] = field(default_factory=dict)
    sparse: list[tuple[int, int]] = field(default_factory=list)
    name: bytes | None = None
    target: bytes | None = None


def members(stream: ArchiveStream, layer: str, max_header_bytes: int) -> Iterator[Member]:
    """Yield the members of the archive in `stream`, which is read to its end.

    Args:
        stream: The uncompressed archive.
        layer: The name of the layer in errors.
        max_header_bytes: The limit of each extended header.

    Raises:
        LimitExceeded: An extended header is larger.
        LayerError: The stream is not a tar archive, or has members that layers may not have.
    """
    extensions: _Extensions | None = None
    while (header := _next_header(stream, extensions, layer)) is not None:
        flag = header[156:157]
        if flag in b"xXgLK":
            extensions = extensions or _Extensions()
            at = _header_at(stream, layer)
            _read_extension(stream, header, flag, extensions, at, max_header_bytes)
            continue
        member = _member(header, flag, extensions, layer)
        if member.type is not EntryType.FILE:
            yield member
        else:
            where = member.where
            stored = member.size
            sparse = _sparse_map(stream, header, flag, extensions, stored, where)
            if sparse is None and stored <= _ONE_PIECE:
                # The fast path for small files: no generator.
                member.content_at = stream.offset
                member.content = (stream.exactly(stored, where),) if stored else ()
                yield member
            else:
                yield from _with_pieces(stream, member, sparse, where)
            if padding := -stored % BLOCK:
                stream.exactly(padding, where)
        extensions = None


def _next_header(stream: ArchiveStream, extensions: _Extensions | None, layer: str) -> bytes | None:
    """Return the next header, whose checksum is correct; None at the end of the archive."""
    block = stream.read(BLOCK)
    if len(block) < BLOCK or block == _ZERO_BLOCK:
        _check_end(stream, bytes(block), extensions, layer)
        return None
    header = bytes(block)
    _check_header(header, stream, layer)
    return header


def _with_pieces(
    stream: ArchiveStream, member: Member, sparse: SparseMap | None, where: Where
) -> Iterator[Member]:
    stored = member.size - (sparse.map_bytes if sparse else 0)
    pieces = stream.pieces(stored, where)
    member.content = pieces
    if sparse is None:
        member.content_at = stream.offset
    else:
        member.size = sparse.size
        member.holes = sparse.size - stored
        member.content = with_holes(sparse, pieces)
    yield member
    for _ in pieces:
        pass


def _header_at(stream: ArchiveStream, layer: str) -> str:
    return f"cannot unpack {layer}, header at byte {stream.offset - BLOCK}"


def _check_end(
    stream: ArchiveStream, block: bytes, extensions: _Extensions | None, layer: str
) -> None:
    """Accept up to two zero blocks at the end; ignore data after two."""
    what = f"cannot unpack {layer}"
    if block and len(block) < BLOCK:
        raise LayerError(what, why="the archive ends within a header")
    if extensions is not None and (extensions.pax or extensions.name or extensions.target):
        raise LayerError(what, why="the archive ends after an extended header")
    second = stream.read(BLOCK)
    if any(second):
        raise LayerError(what, why=f"a lone block of zeros at byte {stream.offset - len(second)}")
    stream.drain()


def _check_header(header: bytes, stream: ArchiveStream, layer: str) -> None:
    field = header[148:156]
    try:
        stored = octal_or_binary(field)
    except ValueError as error:
        raise LayerError(
            _header_at(stream, layer), why=f"not a tar header: its checksum is {error}"
        ) from error
    # The lower half of Adler-32 is 1 + the sum of all bytes, modulo 65521. It is ten times faster
    # than sum().
    total = (zlib.adler32(header) & 0xFFFF) - 1 - sum(field) + _CHECKSUM_SPACES
    if (total - stored) % _ADLER_MODULUS and stored != _signed_checksum(header):
        raise LayerError(
            _header_at(stream, layer), why="its checksum is wrong: the archive is corrupt"
        )


def _signed_checksum(header: bytes) -> int:
    """Return the checksum as some old systems computed it, with signed characters."""
    counted = header[:148] + header[156:]
    return sum(counted) - 256 * sum(byte > 127 for byte in counted) + _CHECKSUM_SPACES


def _read_extension(
    stream: ArchiveStream,
    header: bytes,
    flag: bytes,
    extensions: _Extensions,
    where: str,
    max_bytes: int,
) -> None:
    try:
        size = octal_or_binary(header[124:136])
    except ValueError as error:
        raise LayerError(where, why=f"the size is {error}") from error
    if not 0 <= size <= max_bytes:
        raise LimitExceeded(
            where,
            limit="header_bytes",
            allowed=max_bytes,
            found=size,
            why=f"an extended header of {size} bytes; {max_bytes} at most",
        )
    content = bytes(stream.exactly(size, where))
    stream.skip(-size % BLOCK, where)
    if flag == b"L":
        extensions.name = content.split(b"\0", 1)[0]
    elif flag == b"K":
        extensions.target = content.split(b"\0", 1)[0]
    else:
        try:
            records, sparse = pax_records(content)
        except ValueError as error:
            raise LayerError(where, why=f"malformed extended header: {error}") from error
        if flag != b"g":
            extensions.pax, extensions.sparse = records, sparse


def _member(header: bytes, flag: bytes, extensions: _Extensions | None, layer: str) -> Member:
    """Return the member that the headers describe; its content follows in the stream."""
    name, target = _names(header, extensions)
    where = Where(layer, name)
    kind = _TYPES.get(flag)
    if kind is None:
        raise LayerError(str(where), why=f"its type {flag!r} is not allowed in layers")
    if flag == b"\0" and name.endswith(b"/"):
        kind = EntryType.DIRECTORY  # the mark of directories in archives older than ustar
    try:
        member = _from_header(header, where, name, kind, target)
        if extensions is not None and extensions.pax:
            _apply_records(member, extensions.pax)
    except ValueError as error:
        raise LayerError(str(where), why=f"a number in its header is {error}") from error
    if member.size < 0:
        raise LayerError(str(where), why=f"its size is {member.size}")
    if not (0 <= member.uid <= NO_OWNER and 0 <= member.gid <= NO_OWNER):
        raise LayerError(str(where), why=f"no system can store its owner {member.uid}:{member.gid}")
    if kind is EntryType.FILE:
        member.target = b""
    else:
        member.size = 0
        if kind is EntryType.SYMLINK:
            member.mode = 0o777
    return member


def _names(header: bytes, extensions: _Extensions | None) -> tuple[bytes, bytes]:
    """Return the member's name and link target, of which extended headers override the header's."""
    name = header[:100].split(b"\0", 1)[0]
    target = header[157:257].split(b"\0", 1)[0]
    if header[345]:  # the first byte of the prefix
        name = _prefix(header) + name
    if extensions is None:
        return name, target
    if extensions.name is not None:
        name = extensions.name
    if extensions.target is not None:
        target = extensions.target
    pax = extensions.pax
    return pax.get("GNU.sparse.name") or pax.get("path") or name, pax.get("linkpath") or target


def _prefix(header: bytes) -> bytes:
    """Return the prefix of the name in a ustar header, with a slash; b"" in other formats.

    The GNU format has times at that position. Go before 1.8 nevertheless wrote prefixes into
    headers with GNU's magic if a number did not fit into a ustar header. As in later releases of
    Go, a value that is not a pair of times is interpreted as a prefix (golang.org/issue/12594,
    golang.org/issue/21005).
    """
    magic = header[257:265]
    prefix = header[345:500].split(b"\0", 1)[0] + b"/"
    if magic[:6] == b"ustar\0":
        return prefix
    if magic == _GNU_MAGIC and prefix.isascii():
        try:
            for field in (header[345:357], header[357:369]):
                if field[0]:
                    octal_or_binary(field)
        except ValueError:
            return prefix
    return b""


def _from_header(
    header: bytes, where: Where, name: bytes, kind: EntryType, target: bytes
) -> Member:
    """Return a member with the numbers of the header. Raises ValueError."""
    mode, uid, gid = _mode_and_owner(header[100:124])
    size = octal_or_binary(header[124:136])
    mtime_ns = octal_or_binary(header[136:148]) * 1_000_000_000
    device = None
    if kind in (EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE):
        device = (octal_or_binary(header[329:337]), octal_or_binary(header[337:345]))
    return Member(where, name, kind, mode, uid, gid, size, mtime_ns, target, device, {})


def _apply_records(member: Member, pax: Mapping[str, bytes]) -> None:
    """Apply the records of an extended header, which override the header. Raises ValueError."""
    member.uid = pax_number(pax.get("uid"), member.uid)
    member.gid = pax_number(pax.get("gid"), member.gid)
    member.size = pax_number(pax.get("size"), member.size)
    member.mtime_ns = pax_time(pax.get("mtime"), member.mtime_ns)
    member.xattrs = {
        key[len(_XATTR_PREFIX) :]: value
        for key, value in pax.items()
        if key.startswith(_XATTR_PREFIX)
    }


@lru_cache(maxsize=1024)  # most members of a layer share them
def _mode_and_owner(fields: bytes) -> tuple[int, int, int]:
    mode = octal_or_binary(fields[:8]) & 0o7777
    return mode, octal_or_binary(fields[8:16]), octal_or_binary(fields[16:])


def _sparse_map(
    stream: ArchiveStream,
    header: bytes,
    flag: bytes,
    extensions: _Extensions | None,
    size: int,
    where: Where,
) -> SparseMap | None:
    try:
        if flag == b"S":
            return gnu_map(header, stream, size, where)
        if extensions is not None and any(k.startswith("GNU.sparse.") for k in extensions.pax):
            if extensions.pax.get("GNU.sparse.major") == b"1":
                return pax_map_in_content(extensions.pax, stream, size, where)
            return pax_map(extensions.pax, extensions.sparse, size)
    except ValueError as error:
        raise LayerError(str(where), why=f"its map of sparse regions is wrong: {error}") from error
    return None
