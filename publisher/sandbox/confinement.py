"""Confine the current process, for good, before it reads the first byte of an image."""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import platform
import resource
import signal
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

from publisher.errors import MORE_PROCESSES, NO_PROCESS, is_process_limit
from publisher.lazy import dataclass
from publisher.sandbox import landlock, root
from publisher.sandbox.capabilities import Capability, keep_capabilities
from publisher.sandbox.errors import SandboxError
from publisher.sandbox.filter import MACHINES, Instruction, filter_program
from publisher.sandbox.kernel import process_control

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a process can still do. Sizes are in bytes; None leaves a limit as it is.

    `directory` is the only one with files that can be opened; it becomes the working directory, and
    the root directory where the kernel permits that. `descriptors` stay open: no directories.
    `set_user_id` is whether it can make files set-user-ID. `file_size` limits each file, and
    `address_space` the memory of the process.
    """

    directory: Path
    descriptors: Collection[int] = ()
    capabilities: Collection[Capability] = ()
    set_user_id: bool = False
    address_space: int | None = None
    file_size: int | None = None
    open_files: int | None = None


class Measure(enum.StrEnum):
    """The measures that a kernel or a user may lack."""

    ROOT = "a root directory"
    LANDLOCK = "Landlock"
    SYSTEM_CALLS = "a filter of system calls"


def confine(confinement: Confinement) -> tuple[Measure, ...]:
    """Confine the current process, and return the measures that this machine lacks.

    The process keeps one directory, the given descriptors, threads, memory and clocks. Nothing that
    is not imported yet can be imported afterwards. Standard streams that are not among the given
    descriptors read and write nothing. The process is killed when its parent ends.

    Raises:
        SandboxError: The process has several threads, a descriptor is a directory, or a measure
            fails which every machine has.
    """
    _check(confinement)
    try:
        return tuple(_measures(confinement))
    except OSError as error:
        why, hint = f"{error.strerror or error}", ""
        if is_process_limit(error):  # an ordinary user's root directory takes one more process
            why, hint = NO_PROCESS, MORE_PROCESSES
        raise SandboxError("cannot confine a worker process", why=why, hint=hint) from error


def _check(confinement: Confinement) -> None:
    what = "cannot confine a worker process"
    for descriptor in confinement.descriptors:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise SandboxError(what, why=f"the descriptor {descriptor} is an open directory")
    if threads() > 1:
        raise SandboxError(what, why="it has several threads, and only one would be confined")


def _measures(confinement: Confinement) -> Iterable[Measure]:
    parent = os.getppid()
    if os.getsid(0) != os.getpid():
        os.setsid()
    _close_all_but(confinement.descriptors)
    if not root.enter(confinement.directory):
        yield Measure.ROOT
    _limit(confinement)
    process_control(_PR_SET_NO_NEW_PRIVS, 1)
    keep_capabilities(confinement.capabilities)
    process_control(_PR_SET_DUMPABLE, 0)
    end_with_parent(parent)  # changed credentials reset it
    has_devices = Capability.MKNOD in confinement.capabilities
    if not landlock.restrict(Path(), block_devices=has_devices):
        yield Measure.LANDLOCK
    if not _filter_system_calls(set_user_id=confinement.set_user_id):
        yield Measure.SYSTEM_CALLS


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent, the process `parent`, ends."""
    process_control(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent ended before it


def adopt_orphans() -> None:
    """Let processes whose parents have ended become children of this one, if it is an ancestor."""
    process_control(_PR_SET_CHILD_SUBREAPER, 1)


def children() -> set[int]:
    """Return the process IDs of the children of this process, which has one thread."""
    try:
        return set(map(int, Path("/proc/thread-self/children").read_text().split()))
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return set()


def threads() -> int:
    """Return the number of threads of this process."""
    return len(os.listdir("/proc/self/task"))


def _close_all_but(kept: Iterable[int]) -> None:
    """Close all descriptors but those in `kept`; standard streams lead to /dev/null instead."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in {0, 1, 2}.difference(kept):
        os.dup2(null, stream)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    end = 2**31 - 1 if hard == resource.RLIM_INFINITY else hard
    first = 3
    for descriptor in sorted({each for each in kept if each > 2}):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, max(first, end))


def _limit(confinement: Confinement) -> None:
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, confinement.address_space),
        (resource.RLIMIT_FSIZE, confinement.file_size),
        (resource.RLIMIT_NOFILE, confinement.open_files),
    ):
        if limit is None:
            continue
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(kind, (limit, limit))
    # Beyond the size limit write(2) fails with EFBIG, instead of the signal's end of the process.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _filter_system_calls(*, set_user_id: bool) -> bool:
    """Install the filter; return False if the kernel or the machine has none."""
    machine = platform.machine()
    if machine not in MACHINES or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    try:
        install(filter_program(machine, os.getpid(), set_user_id=set_user_id))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES):
            return False
        raise
    return True


def install(program: Collection[Instruction]) -> None:
    """Install a filter of system calls in this process, which has set no_new_privs.

    Raises:
        OSError: The kernel has no filters, or the container refuses them.
    """
    code = b"".join(each.packed() for each in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = _Program(len(program), ctypes.addressof(buffer))
    process_control(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header))


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))
