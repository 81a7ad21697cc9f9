"""Messages in a stream of bytes: four bytes with the size of a message, then the message.

`NUMBER` is a message of the fork server about a worker: a process ID or a status.
"""

from __future__ import annotations

import socket
import struct

SIZE = struct.Struct(">I")
NUMBER = struct.Struct("=i")


def frame(message: bytes) -> bytes:
    """Return the bytes of one message."""
    return SIZE.pack(len(message)) + message


def receive_frame(channel: socket.socket) -> bytes:
    """Return the next message of a peer that is trusted; raise EOFError if it is incomplete."""
    [size] = SIZE.unpack(_exactly(channel, SIZE.size))
    return _exactly(channel, size)


def _exactly(channel: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = channel.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
