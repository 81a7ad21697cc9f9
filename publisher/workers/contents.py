"""Receive the contents of a layer's files from a worker process, which is not trusted.

Nothing that the worker sends is parsed but numbers. The receiver compares the contents with the
layer's index (`publisher.layers.replay`).
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from publisher.entry import Hole
from publisher.layers.index import IndexHeader
from publisher.layers.replay import Receive, StagedContents
from publisher.workers.answers import MOST_BYTES, parse_end
from publisher.workers.conversation import Conversation
from publisher.workers.errors import WorkerFailed
from publisher.workers.frames import PART, Part, send_with_files

ORDER = "order"
"""The name of the order of contents in the directory of a worker."""

DATA_BYTES = 64 * 1024
"""The size of each part of data, unless a hole or the end of the file follows."""

_BUFFER_BYTES = 256 * 1024
_PARTS = {part.value: part for part in Part}


@contextmanager
def linked_order(staged: StagedContents) -> Iterator[None]:
    """Make the private directory of a worker, with the order of contents in it."""
    staged.scratch.mkdir(mode=0o700)
    os.link(staged.order, staged.scratch / ORDER)
    yield


class Contents:
    """The exchange about the contents of one layer, whose index has `header`."""

    def __init__(self, conversation: Conversation, header: IndexHeader) -> None:
        self._conversation = conversation
        self._channel = conversation.channel
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._at = self._end = 0
        # A region of a sparse file needs at least four bytes of the archive, and may begin and end
        # a part; so do files.
        regions = min(header.holes, header.archive_size // 4)
        self._parts_left = 2 * header.entries + 2 * regions + header.content_size // DATA_BYTES + 2
        self._archive_size = header.archive_size

    def begin(self, directory: Path, blob: BinaryIO, index: BinaryIO) -> None:
        """Let the worker begin to read.

        Args:
            directory: The private directory of the worker.
            blob: The layer's blob, opened for reading.
            index: The layer's index, opened for reading.
        """
        job = {"contents": str(directory), "file_size": 2 * self._archive_size + 2**28}
        index.seek(0)
        with suppress(ConnectionError):  # the worker has ended
            files = [blob.fileno(), index.fileno()]
            send_with_files(self._channel, json.dumps(job).encode(), files)

    def receive(self, receive: Receive) -> bool:
        """Pass on the contents; return False if the worker ended before its answer.

        Raises:
            WorkerFailed: The worker sends something else.
            Exception: The error that the worker reports, or whatever `receive` raises.
        """
        try:
            kind, number = self._next_part()
            while kind is Part.FILE:
                whole = self._whole()
                if whole is not None:
                    receive(number, whole)
                    kind, number = self._next_part()
                    continue
                pieces = self._pieces()
                receive(number, pieces)
                if next(pieces, None) is not None:
                    raise self._failed("a file has more content than it should")
                kind, number = self._held
        except EOFError:
            return False
        if kind is not Part.ANSWER:
            raise self._failed("it sent something else than contents")
        return True

    def _whole(self) -> tuple[memoryview, ...] | None:
        """Return the content of a small file that another file follows, without a copy.

        This is the fast path. None if it is not such a file: nothing was taken then.
        """
        header = PART.size
        self._fill(header)
        kind, size = PART.unpack_from(self._buffer, self._at)
        if kind == Part.FILE:
            return ()
        if kind != Part.DATA or not 0 < size <= DATA_BYTES:
            return None
        self._fill(2 * header + size)
        at = self._at + header
        if self._buffer[at + size] != Part.FILE:
            return None
        self._parts_left -= 1
        self._at = at + size
        return (self._buffer[at : at + size],)

    def _pieces(self) -> Iterator[memoryview | Hole]:
        """Yield the content of a file, and hold the part that follows."""
        kind, number = self._next_part()
        while kind in (Part.DATA, Part.HOLE):
            if not number:
                raise self._failed("it sent an empty part")
            if kind is Part.HOLE:
                yield Hole(number)
            else:
                yield from self._data(number)
            kind, number = self._next_part()
        self._held = kind, number

    def _next_part(self) -> tuple[Part, int]:
        self._parts_left -= 1
        if self._parts_left < 0:
            raise self._failed("it sent more parts than the layer can have")
        self._fill(PART.size)
        kind, number = PART.unpack_from(self._buffer, self._at)
        self._at += PART.size
        part = _PARTS.get(kind)
        if part is None or (part is Part.ANSWER and number > MOST_BYTES):
            raise self._failed("it sent something else than contents")
        if part is Part.ANSWER:  # also within a file, after an error
            message = b"".join(bytes(piece) for piece in self._data(number))
            parse_end(message, self._conversation.what)
        return part, number

    def _data(self, count: int) -> Iterator[memoryview]:
        """Yield the next `count` bytes; a piece is valid until the next one is requested."""
        while count:
            self._fill(1)
            piece = self._buffer[self._at : min(self._end, self._at + count)]
            self._at += len(piece)
            count -= len(piece)
            yield piece

    def _fill(self, least: int) -> None:
        """Receive until the buffer has `least` bytes; raise EOFError if the worker has ended."""
        if self._end - self._at >= least:
            return
        rest = bytes(self._buffer[self._at : self._end])
        self._buffer[: len(rest)] = rest
        self._at, self._end = 0, len(rest)
        while self._end < least:
            self._end += self._received()

    def _received(self) -> int:
        while True:
            try:
                count = self._channel.recv_into(self._buffer[self._end :])
            except BlockingIOError:
                self._conversation.wait(select.POLLIN)
                continue
            except ConnectionError as error:
                raise EOFError from error
            if not count:
                raise EOFError
            return count

    def _failed(self, why: str) -> WorkerFailed:
        return WorkerFailed(self._conversation.what, why=f"its worker process failed: {why}")
