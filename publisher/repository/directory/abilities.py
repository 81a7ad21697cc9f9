"""Check the abilities of the file system and the process before anything is fetched.

Everything is tried in a private scratch directory. Optional abilities (extended attributes,
whiteouts, hard links, owners) are not tested here: content is published without them, and the
commands report that.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from publisher.repository import RepositoryError
from publisher.repository.descriptors import remove_at
from publisher.repository.disk import can_be_moved, write_new_file
from publisher.tree import layout

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ROOT_NEEDS = {0: "CHOWN", 1: "DAC_OVERRIDE", 3: "FOWNER", 4: "FSETID"}
"""The capabilities (capabilities(7)) that user 0 needs to give files to their owners."""


class _Missing(Exception):
    """An ability is missing; with the remedy."""

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = what
        self.hint = hint or "choose a local file system, such as ext4 or xfs"


def check_process(root: Path) -> None:
    """Raise RepositoryError if this process cannot publish into any directory."""
    try:
        status = Path("/proc/self/status").read_text(errors="replace")
    except OSError as error:
        raise RepositoryError(
            f"cannot use repository {root}",
            why="/proc is not mounted, which is needed to set modes without following links",
            hint="mount it: mount -t proc proc /proc",
        ) from error
    if os.geteuid() != 0:
        return
    held = next((int(v, 16) for k, _, v in _fields(status) if k == "CapEff"), -1)
    missing = [f"CAP_{name}" for number, name in _ROOT_NEEDS.items() if not held >> number & 1]
    if missing:
        raise RepositoryError(
            f"cannot use repository {root}",
            why=f"user 0 publishes files with their owners, and lacks {', '.join(missing)}",
            hint="add the capabilities (docker run --cap-add …), or publish as an ordinary user",
        )


def _fields(status: str) -> list[tuple[str, str, str]]:
    return [line.partition(":\t") for line in status.splitlines()]


def check_file_system(root: Path, scratch: Path) -> None:
    """Raise RepositoryError if the file system of `root` lacks an ability.

    `scratch` is an unused path in the staging space. On a full disk nothing is tried: collecting
    must still be possible there.
    """
    try:
        scratch.mkdir(mode=0o700)
    except OSError as error:
        if error.errno in _FULL:
            return
        raise
    try:
        for check in (_check_names, _check_modes, _check_rename, _check_symlinks):
            _run(check, scratch)
        _check_movable(root, scratch)
    except _Missing as error:
        raise RepositoryError(
            f"cannot use repository {root}",
            why=f"its file system {error.what}",
            hint=error.hint,
        ) from error
    finally:
        _remove(scratch)


def _run(check: Callable[[Path], None], scratch: Path) -> None:
    try:
        check(scratch)
    except OSError as error:
        if error.errno not in _FULL:
            raise


def _check_names(scratch: Path) -> None:
    write_new_file(scratch / "name", b"")
    if (scratch / "NAME").exists():
        raise _Missing("does not distinguish upper and lower case in names")


def _check_modes(scratch: Path) -> None:
    directory = scratch / "directory"
    directory.mkdir()
    try:
        directory.chmod(0o750)
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise _Missing("does not store the modes of files") from error
    if directory.stat().st_mode & 0o777 != 0o750:
        raise _Missing("does not store the modes of files")


def _check_rename(scratch: Path) -> None:
    write_new_file(scratch / "new", b"new")
    write_new_file(scratch / "old", b"old")
    try:
        (scratch / "new").rename(scratch / "old")
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise _Missing("cannot replace a file by renaming another") from error


def _check_symlinks(scratch: Path) -> None:
    link = scratch / "link"
    try:
        link.symlink_to("missing")
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise _Missing("has no symbolic links") from error
    try:
        os.utime(link, ns=(0, 0), follow_symlinks=False)
        os.chown(link, os.geteuid(), os.getegid(), follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return  # the user or group has no ID in this user namespace, on any file system
        # It follows the link: that would change files outside the tree.
        raise _Missing("changes the target of a symbolic link instead of the link") from error


def _check_movable(root: Path, scratch: Path) -> None:
    occupied = scratch / "occupied"
    occupied.mkdir()
    (occupied / "below").mkdir()
    for name in (layout.LAYERS, layout.FLAT):  # scratch is inside .metadata
        if not can_be_moved(root / name, occupied):
            raise _Missing(
                f"cannot move the directory {name}, which is in a lower layer of an overlay",
                "mount the overlay with redirect_dir=on, or copy the repository (cp -a) to a file "
                "system of its own",
            )


def _remove(scratch: Path) -> None:
    parent = os.open(scratch.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_at(parent, scratch.name)
    finally:
        os.close(parent)
