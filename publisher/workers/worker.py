"""One worker process: unpacks one layer, answers, and ends."""

from __future__ import annotations

import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from publisher.repository.disk import file_system_type
from publisher.repository.layer_files import LayerPlace
from publisher.sandbox import Confinement, Measure, confine, for_unpacking
from publisher.workers.answers import encode_error, encode_result
from publisher.workers.frames import frame, receive_frame
from publisher.workers.job import Job, decode_job, open_files, unpack_layer

ADDRESS_SPACE = 2 * 2**30
"""The most memory of a worker, in bytes. A zstd window takes 128 MiB of it, and SQLite 16 MiB."""

OPEN_FILES = 2048
_READ_BYTES = 256 * 1024


def work(channel: socket.socket) -> None:
    """Receive a job and a blob on `channel`, unpack it, and send the answer.

    The blob ends where the other end of the channel is shut down for writing.
    """
    try:
        place, job = decode_job(receive_frame(channel))
    except EOFError:
        return  # the publisher has ended
    lacking: tuple[Measure, ...] = ()
    try:
        # It is looked up in a file that is out of reach afterwards.
        file_system_type(place.directory.stat().st_dev)
        lacking = confine(_confinement(place, job, channel))
        # Paths are relative from here on: the directory may be the root of this process.
        place = LayerPlace(place.form, Path())
        place.temporary.mkdir(mode=0o700)
        _use_for_temporary_files(place.temporary)
        with open_files(place) as files:
            unpacked = unpack_layer(files, _received(channel), job, is_checked=True)
        answer = encode_result(unpacked, lacking)
    except Exception as error:  # noqa: BLE001 - the answer
        answer = encode_error(error)
    with suppress(ConnectionError):  # the publisher does not need it any more
        channel.sendall(frame(answer))


def _confinement(place: LayerPlace, job: Job, channel: socket.socket) -> Confinement:
    policy = job.policy
    set_user_id = policy.setuid == "keep"
    return Confinement(
        place.directory,
        (channel.fileno(),),
        # Only a tree has owners and modes of the image.
        for_unpacking(set_user_id=set_user_id, devices=policy.devices == "keep")
        if place.form == "tree"
        else (),
        set_user_id=set_user_id,
        address_space=ADDRESS_SPACE,
        file_size=max(policy.limits.layer_bytes, policy.limits.layer_apparent_bytes),
        open_files=OPEN_FILES,
    )


def _received(channel: socket.socket) -> Iterator[bytes]:
    while chunk := channel.recv(_READ_BYTES):
        yield chunk


def _use_for_temporary_files(directory: Path) -> None:
    tempfile.tempdir = str(directory)
    # SQLite reads the environment only when it is loaded, which the fork server has done.
    with closing(sqlite3.connect(":memory:")) as database:
        quoted = str(directory).replace("'", "''")
        database.execute(f"PRAGMA temp_store_directory = '{quoted}'")
