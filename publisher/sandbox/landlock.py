"""Restrict the current process by Landlock; see landlock(7)."""

from __future__ import annotations

import ctypes
import enum
import errno
import os
from pathlib import Path

from publisher.sandbox.kernel import system_call

CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

LEAST_ABI = 2
"""The first version (Linux 5.19) in which a process can link files between directories."""


class Access(enum.IntFlag):
    """What can be done with files, with the bits of `linux/landlock.h`."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


_SINCE = {3: Access.TRUNCATE, 5: Access.IOCTL_DEV}
"""The versions of Landlock that know further kinds of access than version 2."""
_ALLOWED = (
    *(Access.WRITE_FILE, Access.READ_FILE, Access.READ_DIR, Access.TRUNCATE),
    *(Access.REMOVE_DIR, Access.REMOVE_FILE, Access.REFER),
    *(Access.MAKE_DIR, Access.MAKE_REG, Access.MAKE_SYM, Access.MAKE_FIFO),
    Access.MAKE_CHAR,  # whiteouts
)
_NOT_ALLOWED = Access.EXECUTE | Access.MAKE_SOCK | Access.MAKE_BLOCK | Access.IOCTL_DEV

_TCP_BIND_AND_CONNECT = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def landlock_abi() -> int:
    """Return the version of Landlock in this kernel; 0 without it, or if it is switched off."""
    try:
        return system_call(CREATE_RULESET, 0, 0, _CREATE_RULESET_VERSION)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            return 0
        raise


def handled(abi: int) -> tuple[Access, int, int]:
    """Return what a ruleset of version `abi` restricts: files, TCP ports, and scopes."""
    access = sum(_ALLOWED, _NOT_ALLOWED)
    for version, kind in _SINCE.items():
        if abi < version:
            access &= ~kind
    return (
        access,
        _TCP_BIND_AND_CONNECT if abi >= 4 else 0,
        _ABSTRACT_SOCKETS_AND_SIGNALS if abi >= 6 else 0,
    )


def restrict(directory: Path, *, block_devices: bool) -> bool:
    """Restrict the process to files in `directory`; return False if the kernel cannot do so.

    Nothing is executed, not even there. Depending on the kernel, TCP ports are refused, and signals
    to processes outside and their abstract sockets. The process has set no_new_privs.
    """
    abi = landlock_abi()
    if abi < LEAST_ABI:
        return False
    files, ports, scopes = handled(abi)
    attributes = _Ruleset(files, ports, scopes)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = system_call(CREATE_RULESET, ctypes.addressof(attributes), size, 0)
    try:
        allowed = files & sum(_ALLOWED, Access.MAKE_BLOCK if block_devices else Access(0))
        parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            rule = _PathBeneath(allowed, parent)
            system_call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.addressof(rule), 0)
        finally:
            os.close(parent)
        system_call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return True
