"""In a worker process: read the contents of a staged layer again, and send them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from publisher.entry import Content, Hole, only_piece
from publisher.layers.replay import read_contents
from publisher.sandbox import Confinement, confine
from publisher.workers.answers import encode_end, encode_error
from publisher.workers.contents import DATA_BYTES, ORDER
from publisher.workers.frames import PART, Part
from publisher.workers.surroundings import ADDRESS_SPACE, OPEN_FILES, use_for_temporary_files

_SENT_BYTES = 256 * 1024


class Sender:
    """Sends parts, several at once where they are small."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._held = bytearray()

    def file(self, number: int, content: Content) -> None:
        """Send the content of the file with this number."""
        self._held += PART.pack(Part.FILE, number)
        whole = only_piece(content)
        if whole is not None:
            self._whole(whole)
            return
        data = bytearray()
        hole = 0
        for piece in content:
            if isinstance(piece, Hole):
                self._data(data)
                hole += piece.size
                continue
            if hole and piece:
                self._held += PART.pack(Part.HOLE, hole)
                hole = 0
            if not data and len(piece) >= DATA_BYTES:
                self._held += PART.pack(Part.DATA, len(piece))
                self._flush()
                self._channel.sendall(piece)
                continue
            data += piece
            if len(data) >= DATA_BYTES:
                self._data(data)
        self._data(data)
        if hole:
            self._held += PART.pack(Part.HOLE, hole)

    def _whole(self, content: bytes | memoryview) -> None:
        """Send the content of a small file: the fast path."""
        self._held += PART.pack(Part.DATA, len(content))
        self._held += content
        if len(self._held) >= _SENT_BYTES:
            self._flush()

    def answer(self, message: bytes) -> None:
        """Send the answer, after everything else."""
        self._held += PART.pack(Part.ANSWER, len(message))
        self._held += message
        self._flush()

    def _data(self, data: bytearray) -> None:
        if data:
            self._held += PART.pack(Part.DATA, len(data))
            self._held += data
            data.clear()
        if len(self._held) >= _SENT_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._channel.sendall(self._held)
        self._held.clear()


def send_contents(channel: socket.socket, message: bytes, files: Sequence[int]) -> None:
    """Read the contents of the layer of which `files` are the blob and the index, and answer."""
    sender = Sender(channel)
    try:
        job = json.loads(message)
        lacking = confine(
            Confinement(
                Path(job["contents"]),
                (channel.fileno(), *files),
                address_space=ADDRESS_SPACE,
                file_size=job["file_size"],
                open_files=OPEN_FILES,
            )
        )
        use_for_temporary_files(Path("temporary"))
        blob, index = files
        with os.fdopen(blob, "rb") as blob_file, os.fdopen(index, "rb") as index_file:
            read_contents(blob_file, index_file, Path(ORDER), sender.file)
        answer = encode_end(lacking)
    except ConnectionError:
        return  # the publisher does not need the rest
    except Exception as error:  # noqa: BLE001 - the answer
        answer = encode_error(error)
    with suppress(ConnectionError):
        sender.answer(answer)
