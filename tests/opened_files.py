"""Which files of a directory are opened by any process: the kernel reports it (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OPEN, _IS_DIRECTORY, _NONBLOCK = 0x20, 0x40000000, os.O_NONBLOCK
_EVENT = struct.Struct("iIII")


@contextmanager
def opened_files(root: Path) -> Iterator[set[str]]:
    """The paths below `root` of the files that are opened meanwhile; complete after the block."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(_NONBLOCK)
    assert descriptor >= 0
    watches = {}
    for directory, _, _ in os.walk(root):
        watch = libc.inotify_add_watch(descriptor, os.fsencode(directory), _OPEN)
        assert watch >= 0, os.strerror(ctypes.get_errno())
        watches[watch] = Path(directory).relative_to(root)
    found: set[str] = set()
    try:
        yield found
        while True:
            try:
                data = os.read(descriptor, 1 << 16)
            except BlockingIOError:
                break
            while data:
                watch, mask, _, length = _EVENT.unpack_from(data)
                name = data[_EVENT.size : _EVENT.size + length].rstrip(b"\0")
                data = data[_EVENT.size + length :]
                assert watch >= 0, "events were lost"
                if name and not mask & _IS_DIRECTORY:
                    found.add(str(watches[watch] / os.fsdecode(name)))
    finally:
        os.close(descriptor)
