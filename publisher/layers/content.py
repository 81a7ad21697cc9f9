"""Hash, read and fill the content of files as pieces, some of which may be holes."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator

from publisher.entry import Content, Hole

_ZEROS = memoryview(bytes(2**20))
_READ_BYTES = 2**20


class ContentHash:
    """The SHA-256 of a file's content. The zeros of holes are hashed, but not stored."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, piece: bytes | memoryview | Hole) -> None:
        """Add the next piece."""
        if isinstance(piece, Hole):
            for zeros in _zeros(piece):
                self._hash.update(zeros)
        else:
            self._hash.update(piece)

    def hexdigest(self) -> str:
        """Return the digest of everything added so far."""
        return self._hash.hexdigest()


def filled(content: Content) -> Iterator[bytes | memoryview]:
    """Return `content` with zeros in place of holes."""
    for piece in content:
        if isinstance(piece, Hole):
            yield from _zeros(piece)
        else:
            yield piece


def read_content(descriptor: int) -> Iterator[bytes | Hole]:
    """Return the content of an open file from its beginning, with its holes.

    Raises OSError. If the file system does not report holes, they are read as zeros.
    """
    at, size = 0, os.fstat(descriptor).st_size
    while at < size:
        start = _seek_data(descriptor, at, size)
        if start > at:
            yield Hole(start - at)
        if start >= size:
            return
        try:
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError:
            end = size
        at = start
        while at < end:
            data = os.pread(descriptor, min(_READ_BYTES, end - at), at)
            if not data:
                return
            at += len(data)
            yield data


def _seek_data(descriptor: int, at: int, size: int) -> int:
    """Return the offset of the first data at or after `at`; `size` if there are none."""
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else at


def _zeros(hole: Hole) -> Iterator[memoryview]:
    left = hole.size
    while left > 0:
        piece = _ZEROS[:left]
        left -= len(piece)
        yield piece
