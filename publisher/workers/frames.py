"""Messages between the publisher and a worker process.

A *frame* is four bytes with the size of a message, then the message. `NUMBER` is a message of the
fork server about a worker: a process ID or a status.

A worker that reads the contents of a layer sends *parts*, each with a header `PART`: its kind and a
number. The header of a file (its number in the index) is followed by the parts of its content, in
order: data and holes (the number is their size in bytes). The last part is the answer.
"""

from __future__ import annotations

import enum
import socket
import struct

SIZE = struct.Struct(">I")
NUMBER = struct.Struct("=i")
PART = struct.Struct(">BQ")


class Part(enum.IntEnum):
    """The kinds of parts. Data and an answer are followed by as many bytes as their number."""

    FILE = 1
    DATA = 2
    HOLE = 3
    ANSWER = 4


def frame(message: bytes) -> bytes:
    """Return the bytes of one message."""
    return SIZE.pack(len(message)) + message


def send_with_files(channel: socket.socket, message: bytes, files: list[int]) -> None:
    """Send the first message of a channel, and the descriptors `files`."""
    socket.send_fds(channel, [frame(message)[: SIZE.size]], files)
    channel.sendall(message)


def receive_with_files(channel: socket.socket, most: int) -> tuple[bytes, list[int]]:
    """Return the first message of a peer that is trusted, and up to `most` descriptors.

    Raises EOFError if the message is incomplete.
    """
    head, files, _, _ = socket.recv_fds(channel, SIZE.size, most)
    [size] = SIZE.unpack(head + _exactly(channel, SIZE.size - len(head)))
    return _exactly(channel, size), files


def _exactly(channel: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = channel.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
