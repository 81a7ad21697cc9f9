"""The filter of system calls, as a program for the kernel's seccomp (pure).

What is not listed is refused with EPERM. Numbers beyond the kernel's tables of today fail with
ENOSYS, and so does clone3, for which a library then uses the calls that it replaces.
"""

from __future__ import annotations

import errno
import stat
import struct
from collections.abc import Collection, Iterator, Sequence

from publisher.lazy import dataclass
from publisher.sandbox.syscalls import NUMBERS

MACHINES = ("x86_64", "aarch64")
"""The machines (uname -m) that the filter is known for, in the order of `NUMBERS`."""

_AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_FIRST_UNKNOWN = 470
"""The first number after the tables of Linux 6.17."""

_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000

_LOAD_WORD = 0x20
_AND = 0x54
_EQUAL = 0x15
_GREATER = 0x25
_GREATER_OR_EQUAL = 0x35
_RETURN = 0x06

_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in `struct seccomp_data`."""

_NAMESPACES = 0x7E020080
"""CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
_CLONE_THREAD = 0x00010000
_PROT_EXEC = 4

_FCNTL = (
    *(0, 1, 2, 3, 4),  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL
    *(5, 6, 7),  # F_GETLK, F_SETLK, F_SETLKW
    *(36, 37, 38),  # F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW
    *(1030, 1031, 1032),  # F_DUPFD_CLOEXEC, F_SETPIPE_SZ, F_GETPIPE_SZ
)
"""Not F_SETOWN and F_SETSIG, which let the kernel send a signal to any process of the user."""

_IOCTL = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ (isatty), FIONREAD, FIONCLEX and FIOCLEX.

Not those of file systems, some of which open any file by its number.
"""

_PRCTL = (15, 16, 0x53564D41)
"""PR_SET_NAME, PR_GET_NAME, PR_SET_VMA."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The bits `mask` of an argument (0 to 5) have one of `values`. `word` 1 is the upper half."""

    argument: int
    values: Collection[int]
    mask: int = 0xFFFFFFFF
    word: int = 0


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of the classic BPF machine; see `linux/filter.h`."""

    code: int
    operand: int
    if_true: int = 0
    if_false: int = 0

    def packed(self) -> bytes:
        """Return the bytes of `struct sock_filter`."""
        return struct.pack("=HBBI", self.code, self.if_true, self.if_false, self.operand)


_MODE_ARGUMENTS = {
    "chmod": 1,
    "creat": 1,
    "fchmod": 1,
    "fchmodat": 2,
    "fchmodat2": 2,
    "mkdir": 1,
    "mkdirat": 2,
    "mknod": 1,
    "mknodat": 2,
    "open": 2,
    "openat": 3,
}
"""The calls that set the mode of a file, and the argument that has it.

Not openat2, whose argument is in memory, where a filter cannot read.
"""


def conditions(pid: int, *, set_user_id: bool) -> dict[str, tuple[Condition, ...]]:
    """Return the conditions of calls that are not always allowed, for the process `pid`."""
    modes = {} if set_user_id else _MODE_ARGUMENTS
    itself = Condition(0, (pid,))
    not_executable = Condition(2, (0,), mask=_PROT_EXEC)
    return {
        **{name: (Condition(number, (0,), mask=stat.S_ISUID),) for name, number in modes.items()},
        "clone": (Condition(0, (_CLONE_THREAD,), mask=_CLONE_THREAD | _NAMESPACES),),
        "fcntl": (Condition(1, _FCNTL),),
        "ioctl": (Condition(1, _IOCTL),),
        "kill": (itself,),
        "mmap": (not_executable,),
        "mprotect": (not_executable,),
        "prctl": (Condition(0, _PRCTL),),
        "prlimit64": (Condition(0, (0, pid)),),
        "sendto": (Condition(4, (0,)), Condition(4, (0,), word=1)),  # not to an address
        "tgkill": (itself,),
        "tkill": (itself,),
    }


def filter_program(machine: str, pid: int, *, set_user_id: bool) -> list[Instruction]:
    """Return the filter of a worker process.

    Args:
        machine: One of MACHINES.
        pid: The number of the process, to which alone it can send signals.
        set_user_id: Whether it can make files set-user-ID.
    """
    column = MACHINES.index(machine)
    numbers = {name: both[column] for name, both in NUMBERS.items()}
    conditional = conditions(pid, set_user_id=set_user_id)
    allowed = [
        number
        for name, number in numbers.items()
        if number is not None and name not in conditional and name != "clone3"
    ]
    program = [
        Instruction(_LOAD_WORD, _ARCHITECTURE),
        Instruction(_EQUAL, _AUDIT_ARCHITECTURES[machine], 1, 0),
        Instruction(_RETURN, _KILL_PROCESS),
        Instruction(_LOAD_WORD, _NUMBER),
        Instruction(_GREATER_OR_EQUAL, _X32, 0, 1),
        Instruction(_RETURN, _ERRNO | errno.EPERM),
        Instruction(_GREATER_OR_EQUAL, _FIRST_UNKNOWN, 0, 1),
        Instruction(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    for first, last in ranges(allowed):
        program += [
            Instruction(_GREATER_OR_EQUAL, first, 0, 2),
            Instruction(_GREATER, last, 1, 0),
            Instruction(_RETURN, _ALLOW),
        ]
    for name, needed in conditional.items():
        if (number := numbers[name]) is not None:
            program += _conditional(number, needed)
    clone3 = numbers["clone3"]
    assert clone3 is not None
    return [
        *program,
        Instruction(_EQUAL, clone3, 0, 1),
        Instruction(_RETURN, _ERRNO | errno.ENOSYS),
        Instruction(_RETURN, _ERRNO | errno.EPERM),
    ]


def ranges(numbers: Collection[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of each run of consecutive numbers, sorted."""
    first = last = -2
    for number in sorted(numbers):
        if number != last + 1:
            if last >= 0:
                yield first, last
            first = number
        last = number
    if last >= 0:
        yield first, last


def _conditional(number: int, needed: Sequence[Condition]) -> list[Instruction]:
    """Return the instructions that decide about the call `number`, and skip all others."""
    body: list[Instruction] = []
    for condition in needed:
        offset = _ARGUMENTS + 8 * condition.argument + 4 * condition.word
        body += [Instruction(_LOAD_WORD, offset), Instruction(_AND, condition.mask)]
        last = len(condition.values)
        body += [
            Instruction(_EQUAL, value, last - each, 0)
            for each, value in enumerate(condition.values)
        ]
        body.append(Instruction(_RETURN, _ERRNO | errno.EPERM))
    body.append(Instruction(_RETURN, _ALLOW))
    return [Instruction(_EQUAL, number, 0, len(body)), *body]
