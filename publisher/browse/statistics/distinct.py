"""Count distinct contents of files in bounded memory.

A content is known by the first 64 bits of its digest: of a hundred million contents, fewer than one
is expected to be taken for another one.
"""

from __future__ import annotations

import sys
import tempfile
from array import array
from bisect import bisect_left
from typing import BinaryIO

from publisher.closing import Closing
from publisher.layers.errors import NoTemporarySpace
from publisher.lazy import dataclass

_PARTS = 256
_BUFFER = 64 * 1024
_ITEM = 8
_BOUNDS = [part << 56 for part in range(_PARTS + 1)]


@dataclass(frozen=True, slots=True)
class Digests:
    """Distinct contents: the beginnings of their digests, sorted, and their sizes in bytes."""

    keys: array[int]
    sizes: array[int]

    @classmethod
    def of(cls, found: dict[int, int]) -> Digests:
        """Return the contents with these sizes, by the first 64 bits of their digests."""
        keys = array("Q", sorted(found))
        return cls(keys, array("Q", map(found.__getitem__, keys)))


class DistinctContents(Closing):
    """Counts distinct contents, in a temporary file, as an external hash table.

    Contents are distributed to parts by the beginning of their digests. Each part is then counted
    by itself, so that memory has the contents of one part at a time.
    """

    def __init__(self) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  # until `close`
        self._buffers = [(bytearray(), bytearray()) for _ in range(_PARTS)]
        self._extents: list[list[tuple[int, int]]] = [[] for _ in range(_PARTS)]
        self._end = 0

    def close(self) -> None:
        """Delete the temporary file."""
        self._file.close()

    def add(self, found: Digests) -> None:
        """Add contents.

        Raises:
            NoTemporarySpace: The temporary file cannot be written.
        """
        keys, sizes = memoryview(found.keys), memoryview(found.sizes)
        start = 0
        for part, (key_buffer, size_buffer) in enumerate(self._buffers):
            end = bisect_left(keys, _BOUNDS[part + 1], start)
            if end > start:
                key_buffer.extend(keys[start:end].tobytes())
                size_buffer.extend(sizes[start:end].tobytes())
                if len(key_buffer) >= _BUFFER:
                    self._write(part)
                start = end

    def count(self) -> tuple[int, int]:
        """Return the number of distinct contents, and the sum of their sizes."""
        count = total = 0
        for part, (keys, sizes) in enumerate(self._buffers):
            found = dict(zip(_numbers(keys), _numbers(sizes), strict=True))
            for offset, length in self._extents[part]:
                self._file.seek(offset)
                more, of_them = self._file.read(length), self._file.read(length)
                found.update(zip(_numbers(more), _numbers(of_them), strict=True))
            count += len(found)
            total += sum(found.values())
        return count, total

    def _write(self, part: int) -> None:
        keys, sizes = self._buffers[part]
        try:
            self._file.write(keys)
            self._file.write(sizes)
        except OSError as error:
            raise NoTemporarySpace(
                "cannot count the contents of files",
                why=f"the list of their digests cannot be stored: {error.strerror}",
                hint="free space for temporary files, or set TMPDIR to a directory with more",
            ) from error
        self._extents[part].append((self._end, len(keys)))
        self._end += 2 * len(keys)
        keys.clear()
        sizes.clear()


def digest_key(sha256: str) -> int:
    """Return the first 64 bits of a hexadecimal digest."""
    return int(sha256[:16], 16)


def to_bytes(numbers: array[int]) -> bytes:
    """Return the numbers as bytes, in the same order on every machine."""
    if sys.byteorder == "big":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()


def from_bytes(data: bytes) -> array[int]:
    """Return the numbers that `to_bytes` returned; raise ValueError for other data."""
    numbers = _numbers(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _numbers(data: bytes | bytearray) -> array[int]:
    numbers = array("Q")
    numbers.frombytes(data)
    return numbers
