"""The filter of system calls: its numbers, and what it decides, on a machine of the tests."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import platform
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.sandbox.filter import MACHINES, Instruction, filter_program, ranges
from publisher.sandbox.syscalls import NUMBERS
from tests.components import require_library
from tests.compromised import NUMBERS as REFUSED
from tests.confined import confined

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOWED, KILLED = 0x7FFF0000, 0x80000000
REFUSED_WITH = 0x00050000
PID = 4242
NOT_FILTERED = {335, 336} if platform.machine() == "x86_64" else set[int]()
"""uretprobe and uprobe, which end a process that calls them; the kernel does not filter them."""


def decision(program: list[Instruction], number: int, arguments: tuple[int, ...], arch: int) -> int:
    """What the BPF machine of the kernel returns for a system call; see `linux/filter.h`."""
    data = number.to_bytes(4, "little") + arch.to_bytes(4, "little") + bytes(8)
    data += b"".join(each.to_bytes(8, "little") for each in (*arguments, 0, 0, 0, 0, 0, 0)[:6])
    accumulator, place = 0, 0
    while True:
        each = program[place]
        place += 1
        match each.code:
            case 0x20:
                accumulator = int.from_bytes(data[each.operand : each.operand + 4], "little")
            case 0x54:
                accumulator &= each.operand
            case 0x06:
                return each.operand
            case _:
                is_true = {
                    0x15: accumulator == each.operand,
                    0x25: accumulator > each.operand,
                    0x35: accumulator >= each.operand,
                }[each.code]
                place += each.if_true if is_true else each.if_false


def decide(machine: str, name: str, *arguments: int, set_user_id: bool = False) -> int:
    number = NUMBERS[name][MACHINES.index(machine)]
    assert number is not None
    program = filter_program(machine, PID, set_user_id=set_user_id)
    return decision(program, number, arguments, ARCHITECTURES[machine])


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_those_of_libseccomp(machine: str) -> None:
    library = require_library("libseccomp.so.2", "libseccomp2")
    resolve = library.seccomp_syscall_resolve_name_arch
    numbers = {name: both[MACHINES.index(machine)] for name, both in NUMBERS.items()}
    newer = {"fchmodat2"}  # than libseccomp 2.5
    for name, number in numbers.items():
        known = resolve(ctypes.c_uint32(ARCHITECTURES[machine]), name.encode())
        if known >= 0 or name not in newer:
            assert number == (known if known >= 0 else None), name
    for name, both in REFUSED.items():
        known = resolve(ctypes.c_uint32(ARCHITECTURES[machine]), name.encode())
        assert both[MACHINES.index(machine)] == known, name


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_not_listed_is_refused(machine: str) -> None:
    program = filter_program(machine, PID, set_user_id=False)
    listed = {both[MACHINES.index(machine)] for both in NUMBERS.values()}
    for number in range(470):
        result = decision(program, number, (), ARCHITECTURES[machine])
        if number not in listed:
            assert result == REFUSED_WITH | errno.EPERM, number
    for name, both in REFUSED.items():
        assert both[MACHINES.index(machine)] not in listed, name
    for number in (470, 512, 1000):
        result = decision(program, number, (), ARCHITECTURES[machine])
        assert result == REFUSED_WITH | errno.ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_is_small_enough_for_the_kernel(machine: str) -> None:
    program = filter_program(machine, PID, set_user_id=False)
    assert len(program) < 4096
    for place, each in enumerate(program):
        assert len(each.packed()) == 8
        if each.code in (0x15, 0x25, 0x35):
            assert place + 1 + max(each.if_true, each.if_false) < len(program)


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_decide_about_some_calls(machine: str) -> None:
    refused = REFUSED_WITH | errno.EPERM
    for name, arguments, expected in (
        ("read", (0, 0, 0), ALLOWED),
        ("clone3", (0, 0), REFUSED_WITH | errno.ENOSYS),
        ("clone", (0x003D0F00,), ALLOWED),  # a thread of glibc
        ("clone", (17,), refused),  # fork
        ("clone", (0x003D0F00 | 0x10000000,), refused),  # a user namespace
        ("kill", (PID, 9), ALLOWED),
        ("kill", (0, 9), refused),
        ("kill", (2**32 - 1, 9), refused),  # all processes
        ("kill", (2**32 - PID, 9), refused),  # a group
        ("tgkill", (PID, 5, 6), ALLOWED),
        ("tgkill", (1, 5, 6), refused),
        ("mmap", (0, 4096, 3, 0x22, 2**32 - 1), ALLOWED),
        ("mmap", (0, 4096, 7, 0x22, 2**32 - 1), refused),
        ("mprotect", (0, 4096, 5), refused),
        ("sendto", (3, 1, 1, 0, 0, 0), ALLOWED),
        ("sendto", (3, 1, 1, 0, 2**32, 0), refused),
        ("sendto", (3, 1, 1, 0, 1, 0), refused),
        ("fcntl", (3, 2, 1), ALLOWED),
        ("fcntl", (3, 8, 1), refused),  # F_SETOWN
        ("ioctl", (3, 0x5401), ALLOWED),
        ("ioctl", (3, 0x5412), refused),  # TIOCSTI
        ("ioctl", (3, 0x5401 | 2**40), ALLOWED),  # the kernel ignores the upper half as well
        ("prctl", (15, 0), ALLOWED),
        ("prctl", (4, 1), refused),  # PR_SET_DUMPABLE
        ("prlimit64", (0, 7, 0, 1), ALLOWED),
        ("prlimit64", (1, 7, 0, 1), refused),
        ("openat", (3, 1, 0o101, 0o755), ALLOWED),
        ("openat", (3, 1, 0o101, 0o4755), refused),
        ("fchmod", (3, 0o2755), ALLOWED),
        ("fchmod", (3, 0o6755), refused),
        ("fchmodat", (3, 1, 0o4755), refused),
        ("mknodat", (3, 1, 0o104755, 0), refused),
    ):
        assert decide(machine, name, *arguments) == expected, (name, arguments)
    assert decide(machine, "fchmod", 3, 0o6755, set_user_id=True) == ALLOWED


def test_calls_of_other_architectures_end_the_process_and_those_of_x32_fail() -> None:
    program = filter_program("x86_64", PID, set_user_id=False)
    i386 = 0x40000003
    assert decision(program, 3, (), i386) == KILLED
    assert decision(program, 0x40000000, (), ARCHITECTURES["x86_64"]) == REFUSED_WITH | errno.EPERM
    assert decision(program, 0, (), ARCHITECTURES["aarch64"]) == KILLED


@given(st.sets(st.integers(0, 60)))
def test_ranges_have_all_numbers_and_no_others(numbers: set[int]) -> None:
    found = list(ranges(numbers))
    assert [n for first, last in found for n in range(first, last + 1)] == sorted(numbers)
    assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(found))


def test_the_kernel_decides_as_the_machine_of_the_tests_does(tmp_path: Path) -> None:
    """Every number of the kernel's table that is refused, called without any argument."""
    machine = platform.machine()
    program = filter_program(machine, PID, set_user_id=False)
    expected = {
        number: result & 0xFFFF
        for number in range(520)
        if number not in NOT_FILTERED
        and (result := decision(program, number, (), ARCHITECTURES[machine])) != ALLOWED
    }
    libc = ctypes.CDLL(None, use_errno=True)

    def call_all(writer: int) -> None:
        for number, code in expected.items():
            assert libc.syscall(ctypes.c_long(number), 0, 0, 0, 0, 0, 0) == -1, number
            assert ctypes.get_errno() == code, (number, ctypes.get_errno())
        os.write(writer, b"all")

    assert confined(call_all, tmp_path) == "all"
