"""What a compromised worker does with the memory for contents that the publisher shares with it.

Each function gets its descriptor once the layer is unpacked.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable

from tests.compromised import SUCCEEDED

_CHANNEL = 3
_PUNCH_A_HOLE = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


def truncate(memory: int) -> None:
    """Truncate it: a process that reads what is missing gets SIGBUS."""
    os.ftruncate(memory, 0)


def extend(memory: int) -> None:
    """Extend it beyond the limit."""
    os.ftruncate(memory, os.fstat(memory).st_size + mmap.PAGESIZE)


def take_more(memory: int) -> None:
    """Write beyond its end."""
    os.posix_fallocate(memory, os.fstat(memory).st_size, mmap.PAGESIZE)


def forbid_seals(memory: int) -> None:
    """Let it stay writable."""
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)


def leave_a_process(memory: int) -> None:
    """Start a process that writes to it until it is ended."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        with mmap.mmap(memory, mmap.PAGESIZE) as mapped:
            while True:
                mapped[20:40] = os.urandom(20)
                os.write(writer, b"x")
                time.sleep(0.001)
    os.read(reader, 1)


def pass_on(memory: int) -> None:
    """Send it to the publisher, which may keep it open."""
    with socket.socket(fileno=os.dup(_CHANNEL)) as channel:
        socket.send_fds(channel, [b"x"], [memory])


def punch_holes(memory: int) -> None:
    """Free all but its first page: zeros are read there as before, and take memory again."""
    if _libc.fallocate(memory, _PUNCH_A_HOLE, mmap.PAGESIZE, os.fstat(memory).st_size):
        raise OSError(ctypes.get_errno(), "fallocate")


def change(memory: int) -> None:
    """Change the first content."""
    os.pwrite(memory, b"\xff", 16)


def refer_to_holes(memory: int) -> None:
    """Let its table be in a hole."""
    os.pwrite(memory, struct.pack("<QQ", os.fstat(memory).st_size - 16, 16), 0)


def refer_beyond(memory: int) -> None:
    """Let its table begin and end far beyond the end."""
    os.pwrite(memory, struct.pack("<QQ", 2**63, 2**64 - 1), 0)


REFUSED: tuple[Callable[[int], None], ...] = (
    *(truncate, extend, take_more, forbid_seals, leave_a_process, pass_on),
)
"""What a confined worker cannot do."""


def results(memory: int) -> dict[str, str]:
    """Try what is refused; return SUCCEEDED, or the name of the error, for each."""
    found = {}
    for attempt in REFUSED:
        try:
            attempt(memory)
            found[attempt.__name__] = SUCCEEDED
        except OSError as error:
            found[attempt.__name__] = errno.errorcode[error.errno or 0]
    return found
