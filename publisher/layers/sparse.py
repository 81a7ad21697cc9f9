"""Read sparse files in archives: their stored regions, and their content with its holes.

Source: the GNU tar manual, appendix "Storing Sparse Files": the old format (a map in the header and
in blocks after it), and formats 0.0, 0.1 and 1.0 in PAX records or before the content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from publisher.entry import Hole
from publisher.layers.headers import octal_or_binary, pax_number
from publisher.layers.stream import ArchiveStream
from publisher.lazy import dataclass

_BLOCK = 512
_MOST_REGIONS = 1_000_000
_LONGEST_LINE = _BLOCK


@dataclass(frozen=True, slots=True)
class SparseMap:
    """A file of `size` bytes, of which only `regions` (offset, length) are stored, in order.

    The first `map_bytes` bytes of the stored content are the map, which has been read.
    """

    size: int
    regions: Sequence[tuple[int, int]]
    map_bytes: int = 0


def with_holes(
    sparse: SparseMap, stored: Iterator[memoryview]
) -> Iterator[bytes | memoryview | Hole]:
    """Yield the file's content: the stored pieces, and holes where nothing is stored."""
    at = 0
    piece = memoryview(b"")
    for offset, length in sparse.regions:
        if offset > at:
            yield Hole(offset - at)
        at = offset + length
        while length:
            if not len(piece):
                piece = next(stored)
            part, piece = piece[:length], piece[length:]
            length -= len(part)
            yield part
    if sparse.size > at:
        yield Hole(sparse.size - at)


def gnu_map(header: bytes, stream: ArchiveStream, stored: int, where: object) -> SparseMap:
    """Read a map of the old GNU format: 4 regions in the header, 21 in each block after it."""
    regions = _gnu_regions(header[386:482])
    more = header[482]
    while more:
        if len(regions) > _MOST_REGIONS:
            raise ValueError("too many regions")
        block = bytes(stream.exactly(_BLOCK, where))
        regions += _gnu_regions(block[:504])
        more = block[504]
    return _checked(SparseMap(octal_or_binary(header[483:495]), regions), stored)


def pax_map(
    records: Mapping[str, bytes], listed: Sequence[tuple[int, int]], stored: int
) -> SparseMap:
    """Read a map of format 0.0 (`listed`, a record for each number) or 0.1 (one record)."""
    numbers = records.get("GNU.sparse.map")
    regions = _pairs(numbers.split(b",")) if numbers else listed
    size = records.get("GNU.sparse.size") or records.get("GNU.sparse.realsize")
    return _checked(SparseMap(pax_number(size, stored), regions), stored)


def pax_map_in_content(
    records: Mapping[str, bytes], stream: ArchiveStream, stored: int, where: object
) -> SparseMap:
    """Read a map of format 1.0: a count and the numbers, one per line, before the content.

    It is padded to a whole block.
    """
    lines = _Lines(stream, where)
    count = lines.number()
    if not 0 <= count <= _MOST_REGIONS:
        raise ValueError(f"{count} regions")
    regions = [(lines.number(), lines.number()) for _ in range(count)]
    size = pax_number(records.get("GNU.sparse.realsize"), 0)
    return _checked(SparseMap(size, regions, lines.bytes_read), stored)


class _Lines:
    """Reads numbers, one per line, from blocks of the stream."""

    def __init__(self, stream: ArchiveStream, where: object) -> None:
        self._stream = stream
        self._where = where
        self._held = b""
        self.bytes_read = 0

    def number(self) -> int:
        while b"\n" not in self._held:
            if len(self._held) > _LONGEST_LINE:
                raise ValueError("not a list of numbers")
            self._held += bytes(self._stream.exactly(_BLOCK, self._where))
            self.bytes_read += _BLOCK
        line, _, self._held = self._held.partition(b"\n")
        return pax_number(line, -1)


def _gnu_regions(data: bytes) -> list[tuple[int, int]]:
    fields = (data[at : at + 24] for at in range(0, len(data), 24))
    return [(octal_or_binary(f[:12]), octal_or_binary(f[12:])) for f in fields if f[0] and f[12]]


def _pairs(texts: Sequence[bytes]) -> list[tuple[int, int]]:
    numbers = [pax_number(text, -1) for text in texts]
    if len(numbers) % 2:
        raise ValueError("an odd number of numbers")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _checked(sparse: SparseMap, stored: int) -> SparseMap:
    at = 0
    for offset, length in sparse.regions:
        if offset < at or length < 0:
            raise ValueError("regions overlap, or are out of order")
        at = offset + length
    if at > sparse.size:
        raise ValueError(f"regions exceed the file's {sparse.size} bytes")
    if sum(length for _, length in sparse.regions) != stored - sparse.map_bytes:
        raise ValueError("the regions have another length than the stored content")
    return sparse
