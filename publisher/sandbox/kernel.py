"""System calls that Python's `os` does not have."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.restype = ctypes.c_int
_CLONE_NEWUSER = 0x10000000


def system_call(number: int, *arguments: int) -> int:
    """Return the result of the system call `number`; raise OSError if it fails.

    A pointer is the address of a ctypes object, which the caller keeps until the call returns.
    """
    return _checked(_libc.syscall(*map(ctypes.c_long, (number, *arguments))))


def process_control(option: int, *arguments: int) -> int:
    """Return the result of prctl(2); raise OSError if it fails."""
    four = (*arguments, 0, 0, 0, 0)[:4]
    return _checked(_libc.prctl(ctypes.c_int(option), *map(ctypes.c_ulong, four)))


def new_user_namespace() -> None:
    """Move the process into a user namespace of its own; raise OSError if that is refused."""
    _checked(_libc.unshare(ctypes.c_int(_CLONE_NEWUSER)))


def get_capabilities(header: ctypes.Structure, sets: ctypes.Array[Any]) -> None:
    """Read the capabilities of the process by capget(2)."""
    _checked(_libc.capget(ctypes.byref(header), ctypes.byref(sets)))


def set_capabilities(header: ctypes.Structure, sets: ctypes.Array[Any]) -> None:
    """Set the capabilities of the process by capset(2)."""
    _checked(_libc.capset(ctypes.byref(header), ctypes.byref(sets)))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
