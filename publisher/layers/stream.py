"""Read exact numbers of bytes from a stream of blocks, with few copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from publisher.layers.errors import LayerError


class ArchiveStream:
    """Reads exact numbers of bytes from `blocks`; `offset` counts those already read."""

    __slots__ = ("_at", "_blocks", "_end", "_view", "offset")

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._view = memoryview(b"")
        self._at = 0
        self._end = 0
        self.offset = 0

    def read(self, count: int) -> bytes | memoryview:
        """Return the next `count` bytes; fewer only at the end of the stream."""
        at, end = self._at, self._at + count
        if end <= self._end:
            self._at = end
            self.offset += count
            return self._view[at:end]
        return b"".join(self._available(count))

    def exactly(self, count: int, where: object) -> bytes | memoryview:
        """Return the next `count` bytes; raise LayerError, naming `where`, if the stream ends."""
        data = self.read(count)
        if len(data) < count:
            raise _ends_within(where)
        return data

    def pieces(self, count: int, where: object) -> Iterator[memoryview]:
        """Yield the next `count` bytes in pieces; raise LayerError if the stream ends."""
        for piece in self._available(count):
            count -= len(piece)
            yield piece
        if count:
            raise _ends_within(where)

    def skip(self, count: int, where: object) -> None:
        """Skip the next `count` bytes."""
        for _ in self.pieces(count, where):
            pass

    def drain(self) -> None:
        """Skip everything up to the end."""
        self._view, self._at, self._end = memoryview(b""), 0, 0
        for _ in self._blocks:
            pass

    def _available(self, count: int) -> Iterator[memoryview]:
        while count:
            if self._at == self._end:
                block = next(self._blocks, None)
                if block is None:
                    return
                self._view, self._at, self._end = memoryview(block), 0, len(block)
                continue
            piece = self._view[self._at : min(self._end, self._at + count)]
            self._at += len(piece)
            self.offset += len(piece)
            count -= len(piece)
            yield piece


def _ends_within(where: object) -> LayerError:
    return LayerError(str(where), why="the archive ends within it")
