"""tar-split data: what an archive has beside the contents of files that its unpacked tree has.

With it and the tree the archive can be assembled again, byte for byte: containers/storage does so
where it reads a layer (`podman save`, `podman push`). The format is that of vbatts/tar-split
(tar/storage/entry.go, tar/asm/assemble.go), a gzip stream of JSON lines. A segment (type 2) has
bytes of the archive. A file (type 1) names a file of the tree whose content follows in the archive,
with the CRC-64 of that content.

Only contents that the tree has as they are in the archive are files. Everything else is in
segments: headers, padding, what follows the archive's end, the contents of sparse files and of
members that are not in the tree. Equal archives give equal bytes, however they arrive.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from fastcrc import crc64

MOST_TEXT_BYTES = 4 * 2**30
"""Bound of the text, before compression: podman reads all of it into memory."""

LOOK_BACK = 64 * 1024
"""How many of the bytes before the latest block may still turn out to be the content of a file."""

_FILE, _SEGMENT = 1, 2
_SEGMENT_BYTES = 48 * 1024
_WRITE_BYTES = 256 * 1024
_LEVEL = 6
_GZIP = 16 + zlib.MAX_WBITS


class TarSplit:
    """Writes the tar-split data of one archive to `file`, while the archive is unpacked.

    Memory is bounded: what precedes a file's content is written as soon as it cannot be content.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._compress = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._lines: list[str] = []
        self._line_bytes = 0
        self._text_bytes = 0
        self._position = 0
        self._held: deque[memoryview] = deque()
        self._held_bytes = 0
        self._at = 0
        self._segment = bytearray()
        self._path = ""
        self._size = 0
        self._left = 0
        self._checksum: int | None = None

    def blocks(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the archive's blocks, and remember them."""
        for block in blocks:
            self._held.append(memoryview(block))
            self._held_bytes += len(block)
            if self._left:
                self._take_content()
            if not self._left:
                self._take_segment(self._held_bytes - len(block) - LOOK_BACK)
            yield block

    def file(self, path: str, start: int, size: int) -> None:
        """Announce the content of a file before a further block is read.

        Args:
            path: Where the tree has this content.
            start: Where it begins in the archive (bytes); at most LOOK_BACK bytes of it have been
                read from earlier blocks than the latest.
            size: Its size in bytes, at least one.
        """
        self._take_segment(start - self._at)
        self._end_segment()
        self._path, self._size, self._left = path, size, size
        self._checksum = None
        self._take_content()

    def finish(self, exact: bool) -> None:
        """Write what remains.

        Args:
            exact: Whether the tree has all announced contents. Otherwise, and if the text exceeds
                its bound, `file` is left empty.
        """
        self._take_segment(self._held_bytes)
        self._end_segment()
        self._write_lines()
        if exact and self._text_bytes <= MOST_TEXT_BYTES:
            self._file.write(self._compress.flush())
        else:
            self._file.seek(0)
            self._file.truncate()
        self._file.flush()

    def _take(self, count: int) -> Iterator[memoryview]:
        """Yield and drop the next `count` of the bytes that are held."""
        self._at += count
        self._held_bytes -= count
        while count:
            view = self._held[0]
            if len(view) <= count:
                self._held.popleft()
                count -= len(view)
                yield view
            else:
                self._held[0] = view[count:]
                yield view[:count]
                return

    def _take_segment(self, count: int) -> None:
        if count <= 0:
            return
        for view in self._take(count):
            self._segment += view
        while len(self._segment) >= _SEGMENT_BYTES:
            self._add_segment(bytes(self._segment[:_SEGMENT_BYTES]))
            del self._segment[:_SEGMENT_BYTES]

    def _end_segment(self) -> None:
        if self._segment:
            self._add_segment(bytes(self._segment))
            self._segment.clear()

    def _take_content(self) -> None:
        count = min(self._left, self._held_bytes)
        for view in self._take(count):
            self._checksum = crc64.go_iso(view, self._checksum)
        self._left -= count
        if not self._left:
            checksum = (self._checksum or 0).to_bytes(8, "big")
            self._add_line(
                f'{{"type":{_FILE},{_name(self._path)},"size":{self._size},'
                f'"payload":"{_base64(checksum)}","position":{self._position}}}\n'
            )

    def _add_segment(self, data: bytes) -> None:
        self._add_line(
            f'{{"type":{_SEGMENT},"payload":"{_base64(data)}","position":{self._position}}}\n'
        )

    def _add_line(self, line: str) -> None:
        self._position += 1
        self._text_bytes += len(line)
        if self._text_bytes > MOST_TEXT_BYTES:
            return
        self._lines.append(line)
        self._line_bytes += len(line)
        if self._line_bytes >= _WRITE_BYTES:
            self._write_lines()

    def _write_lines(self) -> None:
        self._file.write(self._compress.compress("".join(self._lines).encode("ascii")))
        self._lines.clear()
        self._line_bytes = 0


def _name(path: str) -> str:
    """Return the field with a file's name; bytes that are not UTF-8 have a field of their own."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return f'"name_raw":"{_base64(path.encode("utf-8", "surrogateescape"))}"'
    return f'"name":{json.dumps(path)}'


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
