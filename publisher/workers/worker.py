"""One worker process: does one job, answers, and ends."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from publisher.repository.disk import file_system_type
from publisher.repository.layer_files import LayerPlace
from publisher.sandbox import Confinement, Measure, confine, for_unpacking
from publisher.workers.answers import encode_error, encode_result
from publisher.workers.frames import frame, receive_with_files
from publisher.workers.job import Job, decode_job, open_files, unpack_layer
from publisher.workers.linking import is_link_job, link
from publisher.workers.reading import send_contents
from publisher.workers.surroundings import ADDRESS_SPACE, OPEN_FILES, use_for_temporary_files

_READ_BYTES = 256 * 1024
_FILES_TO_READ = 2


def work(channel: socket.socket) -> None:
    """Receive a job on `channel`, do it, and send the answer.

    The job of a layer to unpack is followed by its blob, which ends where the other end of the
    channel is shut down for writing. It may have a file, the memory for the layer's contents. The
    files of another job are the blob and the index of a layer whose contents are to be sent. A flat
    image is linked without files.
    """
    try:
        message, files = receive_with_files(channel, 2)
    except EOFError:
        return  # the publisher has ended
    if is_link_job(message):
        link(channel, message)
    elif len(files) == _FILES_TO_READ:
        send_contents(channel, message, files)
    else:
        _unpack(channel, message, files)


def _unpack(channel: socket.socket, message: bytes, files: Sequence[int]) -> None:
    place, job = decode_job(message)
    lacking: tuple[Measure, ...] = ()
    try:
        # It is looked up in a file that is out of reach afterwards.
        file_system_type(place.directory.stat().st_dev)
        lacking = confine(_confinement(place, job, (channel.fileno(), *files)))
        # Paths are relative from here on: the directory may be the root of this process.
        place = LayerPlace(place.form, Path())
        use_for_temporary_files(place.temporary)
        with open_files(place, files[0] if files else None) as opened:
            unpacked = unpack_layer(opened, _received(channel), job, is_checked=True)
        answer = encode_result(unpacked, lacking)
    except Exception as error:  # noqa: BLE001 - the answer
        answer = encode_error(error)
    with suppress(ConnectionError):  # the publisher does not need it any more
        channel.sendall(frame(answer))


def _confinement(place: LayerPlace, job: Job, descriptors: Sequence[int]) -> Confinement:
    policy = job.policy
    set_user_id = policy.setuid == "keep"
    return Confinement(
        place.directory,
        descriptors,
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
