"""Make a directory the root directory of the current process, as root or as an ordinary user."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from publisher.sandbox.kernel import new_user_namespace


def enter(directory: Path) -> bool:
    """Make `directory` the root and working directory; return False if the kernel refuses.

    It is the working directory even then. An ordinary user needs a user namespace for it, in which
    the user and group keep their numbers. The process has a single thread.
    """
    os.chdir(directory)
    try:
        _change_root()
    except PermissionError:
        # Root in a namespace of its own could not give files to their owners.
        if os.geteuid() == 0 or not _succeeds_in_a_child():
            return False
        _change_root_in_a_namespace()
    return True


def _change_root() -> None:
    os.chroot(".")
    os.chdir("/")


def _change_root_in_a_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    new_user_namespace()
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _change_root()


def _succeeds_in_a_child() -> bool:
    """Return whether a child process can change its root in a user namespace.

    A process that is refused between the steps would stay in a namespace without any user.
    """
    child = os.fork()
    if child == 0:
        with suppress(OSError):
            _change_root_in_a_namespace()
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    return status == 0
