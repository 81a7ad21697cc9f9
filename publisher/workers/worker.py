"""One worker process: unpacks one layer, answers, and ends."""

from __future__ import annotations

import os
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from publisher.repository.layer_files import LayerPlace
from publisher.workers.answers import encode_error, encode_result
from publisher.workers.frames import frame, receive_frame
from publisher.workers.job import decode_job, open_files, unpack_layer

_READ_BYTES = 256 * 1024


def work(channel: socket.socket) -> None:
    """Receive a job and a blob on `channel`, unpack it, and send the answer.

    The blob ends where the other end of the channel is shut down for writing.
    """
    try:
        place, job = decode_job(receive_frame(channel))
    except EOFError:
        return  # the publisher has ended
    try:
        os.chdir(place.directory)
        # Paths are relative from here on: the directory may be the root of this process.
        place = LayerPlace(place.form, Path())
        place.temporary.mkdir(mode=0o700)
        _use_for_temporary_files(place.temporary)
        with open_files(place) as files:
            unpacked = unpack_layer(files, _received(channel), job, is_checked=True)
        answer = encode_result(unpacked)
    except Exception as error:  # noqa: BLE001 - the answer
        answer = encode_error(error)
    with suppress(ConnectionError):  # the publisher does not need it any more
        channel.sendall(frame(answer))


def _received(channel: socket.socket) -> Iterator[bytes]:
    while chunk := channel.recv(_READ_BYTES):
        yield chunk


def _use_for_temporary_files(directory: Path) -> None:
    tempfile.tempdir = str(directory)
    # SQLite reads the environment only when it is loaded, which the fork server has done.
    with closing(sqlite3.connect(":memory:")) as database:
        quoted = str(directory).replace("'", "''")
        database.execute(f"PRAGMA temp_store_directory = '{quoted}'")
