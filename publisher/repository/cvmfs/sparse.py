"""Decide which files are sent as sparse members of the stream, without their holes. Pure.

The header of a sparse member has the map of the whole file, so that its content has to be read
before the header is written. This is done for files whose stored content fits in memory. Other
files are sent with their holes filled.

The server reads the stream with libarchive, which returns zeros for holes: content and size of the
published file are the same in both cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from itertools import chain

from publisher.entry import Content, Hole
from publisher.lazy import dataclass
from publisher.repository.cvmfs.tar_header import BLOCK

SMALLEST_SPARSE = 1 << 20
"""The smallest file that is sent as a sparse member, in bytes."""

MOST_STORED = 32 << 20
"""The most bytes of stored content that are kept in memory."""

_LOOK_AHEAD = 1 << 20
"""The number of bytes without a hole after which a file is sent as an ordinary one."""

_SMALLEST_HOLE = 4096
_MOST_REGIONS = 4096


@dataclass(slots=True)
class Regions:
    """The stored regions of a sparse file: (offset, length) in bytes, in order."""

    regions: list[tuple[int, int]] = field(default_factory=list)
    size: int = 0
    stored: int = 0

    def add(self, piece: bytes | Hole) -> None:
        """Add the next piece of the file."""
        if isinstance(piece, Hole):
            self.size += piece.size
            return
        if self.regions and sum(self.regions[-1]) == self.size:
            offset, length = self.regions[-1]
            self.regions[-1] = offset, length + len(piece)
        elif piece:
            self.regions.append((self.size, len(piece)))
        self.size += len(piece)
        self.stored += len(piece)


def find_regions(content: Content, size: int) -> tuple[Regions | None, Content]:
    """Return the regions of a file of `size` bytes, and the stored content.

    The regions are None if the file is to be sent as an ordinary one. The content is then complete,
    with its holes. Content of another size is returned unchanged.
    """
    if size < SMALLEST_SPARSE:
        return None, content
    found = Regions()
    pieces = _aligned(content, size)
    read: list[bytes | Hole] = []
    for piece in pieces:
        read.append(piece)
        found.add(piece)
        if _is_unfit(found):
            return None, chain(read, pieces)
    if found.size != size or found.stored == size:
        return None, read
    if isinstance(read[-1], Hole):
        found.regions.append((size, 0))  # GNU tar takes the end of the file from the last region
    return found, _stored(read)


def _aligned(content: Content, size: int) -> Iterator[bytes | Hole]:
    """Yield `content` with holes that begin and end at blocks, as all readers require.

    A hole may also end at the end of the file. Small holes are filled.
    """
    at = 0
    for piece in content:
        if not isinstance(piece, Hole):
            yield bytes(piece)  # it is valid only until the next one is requested
            at += len(piece)
            continue
        end = at + piece.size
        first = at + -at % BLOCK
        last = end if end == size else end - end % BLOCK
        if last - first < _SMALLEST_HOLE:
            yield bytes(end - at)
        else:
            if first > at:
                yield bytes(first - at)
            yield Hole(last - first)
            if end > last:
                yield bytes(end - last)
        at = end


def _is_unfit(found: Regions) -> bool:
    has_hole = found.size > found.stored
    most = MOST_STORED if has_hole else _LOOK_AHEAD
    return found.stored > most or len(found.regions) > _MOST_REGIONS


def _stored(pieces: list[bytes | Hole]) -> Iterator[bytes]:
    return (piece for piece in pieces if not isinstance(piece, Hole))
