"""Child processes that are confined as a worker is, on this machine or on one with less abilities.

What a machine lacks is real: a filter of system calls makes its kernel refuse a measure.
"""

from __future__ import annotations

import errno
import os
import platform
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from publisher.sandbox import Confinement, Measure, confine, for_unpacking
from publisher.sandbox.confinement import install
from publisher.sandbox.filter import Instruction
from publisher.sandbox.kernel import process_control

ORDINARY_USER = 65534
FILE_SIZE = 2**20
ADDRESS_SPACE = 8 * 2**30
OPEN_FILES = 128

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _FIRST_ARGUMENT = 0, 16
_SET_SECCOMP = 22

_REFUSED_CALLS = {
    Measure.ROOT: ({"x86_64": 161, "aarch64": 51}, None, errno.EPERM),  # chroot
    Measure.LANDLOCK: ({"x86_64": 444, "aarch64": 444}, None, errno.ENOSYS),
    Measure.SYSTEM_CALLS: ({"x86_64": 157, "aarch64": 167}, _SET_SECCOMP, errno.EINVAL),  # prctl
}


def lacking(measure: Measure, code: int | None = None) -> None:
    """Make the kernel refuse `measure` to this process and its children, with an error code.

    The default is the code of a kernel that does not have the measure.
    """
    numbers, option, usual = _REFUSED_CALLS[measure]
    with_option = (
        [Instruction(_LOAD, _FIRST_ARGUMENT), Instruction(_EQUAL, option, 0, 1)] if option else []
    )
    process_control(38, 1)  # PR_SET_NO_NEW_PRIVS
    install(
        [
            Instruction(_LOAD, _NUMBER),
            Instruction(_EQUAL, numbers[platform.machine()], 0, 1 + len(with_option)),
            *with_option,
            Instruction(_RETURN, _ERRNO | (code or usual)),
            Instruction(_RETURN, _ALLOW),
        ]
    )


def become_an_ordinary_user() -> None:
    """Drop root in this process, as far as it has it."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(ORDINARY_USER, ORDINARY_USER, ORDINARY_USER)
        os.setresuid(ORDINARY_USER, ORDINARY_USER, ORDINARY_USER)
        process_control(4, 1)  # PR_SET_DUMPABLE, as in a process that never was root


def as_a_worker(staging: Path, descriptors: Collection[int] = ()) -> Confinement:
    """The confinement of a worker of root for a layer in `staging`, by the default policy."""
    return Confinement(
        staging,
        descriptors,
        capabilities=for_unpacking(set_user_id=False, devices=False),
        address_space=ADDRESS_SPACE,
        file_size=FILE_SIZE,
        open_files=OPEN_FILES,
    )


def in_a_child(action: Callable[[int], None]) -> str:
    """Call `action` in a child process with a descriptor; return what it writes there.

    That of an exception is its traceback. How the process ends follows, unless it ends with 0.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        code = 0
        try:
            action(writer)
        except BaseException:  # noqa: BLE001 - the test process must not continue twice
            os.write(writer, traceback.format_exc().encode())
            code = 1
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as answers:
        text = answers.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return text if code == 0 else f"{text}ended with {code}"


def confined(
    action: Callable[[int], None],
    staging: Path,
    *,
    lacks: Sequence[Measure] = (),
    ordinary: bool = False,
) -> str:
    """Call `action` in a child process that is confined as a worker is; see `in_a_child`.

    The process lacks the measures `lacks`, and is one of an ordinary user if `ordinary` is true.
    """

    def confine_first(writer: int) -> None:
        if ordinary:
            become_an_ordinary_user()
        for measure in lacks:
            lacking(measure)
        missing = confine(as_a_worker(staging, (writer,)))
        assert missing == tuple(lacks), missing
        action(writer)

    return in_a_child(confine_first)
