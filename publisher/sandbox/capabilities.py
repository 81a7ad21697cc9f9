"""Drop the capabilities of the current process; see capabilities(7)."""

from __future__ import annotations

import ctypes
import enum
import errno
from collections.abc import Collection

from publisher.sandbox.kernel import get_capabilities, process_control, set_capabilities

_VERSION_3 = 0x20080522
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


class Capability(enum.IntEnum):
    """The capabilities that unpacking a layer may need, with their numbers in the kernel."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    FOWNER = 3
    FSETID = 4
    MKNOD = 27
    SETFCAP = 31


def for_unpacking(*, set_user_id: bool, devices: bool) -> frozenset[Capability]:
    """Return what root needs to give files their owners, modes and attributes.

    Set-user-ID files and file capabilities need SETFCAP as well, device nodes MKNOD: the whiteout
    0:0 does not (Linux 5.8). `trusted.overlay.*`, the attributes of overlayfs for root's mounts,
    would need SYS_ADMIN, which a process that reads images does not get.
    """
    kept = {Capability.CHOWN, Capability.DAC_OVERRIDE, Capability.FOWNER, Capability.FSETID}
    if set_user_id:
        kept.add(Capability.SETFCAP)
    if devices:
        kept.add(Capability.MKNOD)
    return frozenset(kept)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def keep_capabilities(kept: Collection[Capability]) -> None:
    """Drop all capabilities but those in `kept`, as far as this process has these.

    They are dropped from the bounding set, and from the permitted, effective, inheritable and
    ambient sets.
    """
    header, sets = _Header(_VERSION_3, 0), (_Sets * 2)()
    get_capabilities(header, sets)
    for number in range(64):
        if number not in kept and not _drop_from_bounding_set(number):
            break
    try:
        process_control(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Linux 4.2 does not have this set
            raise
    for word in (0, 1):
        mask = sum(1 << each % 32 for each in kept if each // 32 == word)
        sets[word].permitted &= mask
        sets[word].effective = sets[word].permitted
        sets[word].inheritable = 0
    set_capabilities(header, sets)


def _drop_from_bounding_set(number: int) -> bool:
    """Return whether the kernel knows the capability `number`."""
    try:
        if process_control(_PR_CAPBSET_READ, number):
            process_control(_PR_CAPBSET_DROP, number)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        # Without CAP_SETPCAP the set stays. It only concerns execve, which gives no capabilities
        # to a process with no_new_privs.
        if error.errno != errno.EPERM:
            raise
    return True
