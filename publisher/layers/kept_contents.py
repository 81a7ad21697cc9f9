"""The contents of a layer's files in memory, from when it is unpacked until it is sent.

So the blob of a layer that is published by the process that fetched it is not decompressed and
parsed again. The memory is a file of fixed size without a name, which the process that unpacks the
layer fills, perhaps a worker process, and the publisher reads once that has ended.

It begins with `_HEAD`: where the table begins, and its size. Contents follow, then the table, which
has `_PLACE` for each file of the index, in order: where its content begins, and its size. Without a
table nothing is kept: the contents did not fit, or have holes.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from functools import partial

from publisher.closing import Closing
from publisher.entry import Content, Entry, EntryType, Hole, sort_key
from publisher.layers.errors import LayerError
from publisher.layers.index_lines import is_file, path_key
from publisher.layers.replay import PassOn, Receive

_HEAD = struct.Struct("<QQ")
_PLACE = struct.Struct("<QQ")
_MOST_FILES = 50_000
"""Bounds the memory of their paths while the layer is unpacked."""

_WRITTEN_BYTES = 256 * 1024
_MOST_HELD = 1000
"""How many pieces are written at once; systems permit 1024."""

_PIECE = 1 << 20
"""Larger files are passed on in pieces of this size (bytes)."""


class ContentsWriter(Closing):
    """Writes the contents of one layer to `memory`, an open file whose size does not change.

    `add` receives the layer's entries in the archive's order, `in_order` the lines of its index.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._left = os.fstat(memory).st_size - _HEAD.size
        self._at = _HEAD.size
        self._held: list[bytes | memoryview] = []
        self._held_bytes = 0
        self._places: dict[bytes, tuple[int, int]] = {}

    def add(self, entry: Entry, content: Content) -> None:
        """Store the content of `entry`, of which nothing is read if it is not a file."""
        if self._left < 0:
            return
        if entry.type is EntryType.FILE:
            start = self._at + self._held_bytes
            for piece in content:
                if isinstance(piece, Hole) or not self._store(piece):
                    self.close()
                    return
            self._note(entry.path, (start, self._at + self._held_bytes - start))
        elif entry.type is EntryType.HARDLINK:
            place = self._places.get(sort_key(entry.target))
            if place is not None:
                self._note(entry.path, place)

    def in_order(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield `lines`, and complete the memory at their end."""
        table = bytearray()
        for line in lines:
            if self._left >= 0 and is_file(line):
                place = self._places.get(path_key(line))
                if place is None:
                    self.close()
                else:
                    table += _PLACE.pack(*place)
            yield line
        start = self._at + self._held_bytes
        if self._store(bytes(table)) and self._write():
            os.pwrite(self._memory, _HEAD.pack(start, len(table)), 0)

    def close(self) -> None:
        """Keep nothing of the layer, unless its memory is complete."""
        self._left = -1
        self._held.clear()
        self._places.clear()

    def _store(self, data: bytes | memoryview) -> bool:
        """Append `data`, which does not change; return whether there is space for it."""
        self._left -= len(data)
        if self._left < 0:
            return False
        self._held.append(data)
        self._held_bytes += len(data)
        is_full = self._held_bytes >= _WRITTEN_BYTES or len(self._held) == _MOST_HELD
        return not is_full or self._write()

    def _write(self) -> bool:
        """Write what is held; return whether the machine has the memory for it."""
        try:
            written = os.pwritev(self._memory, self._held, self._at)
        except OSError:
            return False
        is_written = written == self._held_bytes
        self._at += written
        self._held.clear()
        self._held_bytes = 0
        return is_written

    def _note(self, path: str, place: tuple[int, int]) -> None:
        self._places[sort_key(path)] = place
        if len(self._places) > _MOST_FILES:
            self.close()


def is_complete(memory: int) -> bool:
    """Return whether a `ContentsWriter` has kept the whole layer in the file `memory`."""
    head = os.pread(memory, _HEAD.size, 0)
    return len(head) == _HEAD.size and any(head)


def kept_contents(memory: mmap.mmap, layer: str) -> PassOn:
    """Return what passes on the contents in `memory`, in the order of the index.

    The receiver compares them with the index. The function raises LayerError if the memory is
    damaged.

    Args:
        memory: What a `ContentsWriter` has filled; it is complete.
        layer: The name of the layer in errors.
    """
    view = memoryview(memory)
    start, size = _HEAD.unpack_from(view)
    return partial(_pass_on, view, view[start : start + size], layer)


def _pass_on(contents: memoryview, table: memoryview, layer: str, receive: Receive) -> None:
    if len(table) % _PLACE.size:
        raise _damaged(layer)
    for number, (at, size) in enumerate(_PLACE.iter_unpack(table)):
        if at + size > len(contents):
            raise _damaged(layer)
        receive(number, _pieces(contents[at : at + size]))


def _pieces(content: memoryview) -> Content:
    """Return the content in pieces: that of a small file is a tuple."""
    if len(content) <= _PIECE:
        return (content,) if content else ()
    return (content[at : at + _PIECE] for at in range(0, len(content), _PIECE))


def _damaged(layer: str) -> LayerError:
    return LayerError(f"cannot send {layer}", why="its contents in memory are damaged")
