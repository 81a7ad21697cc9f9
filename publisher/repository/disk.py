"""Operations on a file system that are more than one call of `os`."""

from __future__ import annotations

import errno
import functools
import os
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from publisher.repository.descriptors import remove_at

PUBLIC_DIRECTORY_MODE = 0o755
PUBLIC_FILE_MODE = 0o644

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class NotAFile(OSError):
    """Something else is in the place of a file; `found` names it ("a directory")."""

    def __init__(self, path: Path | str, found: str) -> None:
        super().__init__(errno.EINVAL, f"it is {found}, not a file", str(path))
        self.found = found


@functools.cache
def _libc() -> Any:
    import ctypes  # long to load, and commands that only read do not need it

    return ctypes.CDLL(None, use_errno=True)


def _libc_call(function: str, *arguments: object) -> int:
    """Call a function of the C library; return 0, or the error code. ENOSYS if it is missing."""
    import ctypes

    library = _libc()
    if not hasattr(library, function):
        return errno.ENOSYS
    return 0 if getattr(library, function)(*arguments) == 0 else ctypes.get_errno()


def sync_filesystem(path: Path) -> None:
    """Wait until everything written to the file system that holds `path` is on its disk.

    One syncfs(2) serves a tree of any number of files, where fsync would need one call each.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if code := _libc_call("syncfs", descriptor):
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Wait until the names in the directory `path` are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Wait until the content of the file `path` is on disk; its name may not be."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: Path) -> int:
    """Return how many bytes this user can store where `path` is: root also in reserved blocks."""
    status = os.statvfs(path)
    blocks = status.f_bfree if os.geteuid() == 0 else status.f_bavail
    return blocks * status.f_frsize


def write_new_file(path: Path, data: bytes, mode: int = PUBLIC_FILE_MODE) -> None:
    """Create `path` with exactly this content and mode, whatever the umask is."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)


def open_file(path: Path | str) -> BinaryIO:
    """Open a regular file for reading; anything else is NotAFile, and never waited for."""
    try:
        # Opening a FIFO would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT and os.path.islink(path):
            raise NotAFile(path, "a symbolic link that leads nowhere") from None
        if error.errno == errno.ELOOP:
            raise NotAFile(path, "a symbolic link that leads to itself") from None
        if error.errno in (errno.ENXIO, errno.ENODEV):
            raise NotAFile(path, "a socket or device") from None
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO"}
    raise NotAFile(path, kinds.get(stat.S_IFMT(mode), "a device"))


def make_directories(path: Path) -> None:
    """Create `path` and what is missing above it, open to all readers whatever the umask is."""
    if path.is_dir():
        return
    make_directories(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        return
    path.chmod(PUBLIC_DIRECTORY_MODE)


def exchange(one: Path, other: Path) -> None:
    """Exchange two paths, atomically if the file system supports that.

    Otherwise `other` is missing for a moment, while its old content is in `{one}.aside`.
    """
    names = os.fsencode(one), os.fsencode(other)
    code = _libc_call("renameat2", _AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    if code == 0:
        return
    if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(code, os.strerror(code), str(one), None, str(other))
    aside = one.with_name(f"{one.name}.aside")
    other.rename(aside)
    one.rename(other)
    aside.rename(one)


def can_be_moved(directory: Path, occupied: Path) -> bool:
    """Return whether the kernel can rename `directory`; True if it is missing or a mount point.

    Only an overlay refuses: a directory that a lower layer has cannot be renamed without
    redirect_dir (EXDEV). Nothing is moved, since `occupied` is a directory that is not empty; an
    overlay notices that it cannot move the source before it looks at the target.
    """
    try:
        directory.rename(occupied)
    except OSError as error:
        return error.errno != errno.EXDEV
    raise AssertionError(f"{directory} replaced {occupied}, which was not empty")


@cache
def file_system_type(device: int) -> str:
    """Return the type of the file system with this device number ("ext4"); "" if unknown.

    A FUSE file system has the type "fuse." and its own name. See proc_pid_mountinfo(5). Each number
    is looked up once, since a confined process cannot read that file.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        if fields.split()[2:3] == [number]:
            return rest.split()[0]
    return ""


def remove_if_empty(file: Path) -> None:
    """Remove a file, which may be missing, if it has no content."""
    with suppress(FileNotFoundError):
        if not file.stat().st_size:
            file.unlink()


_ON_DISK = (
    *(errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.EMLINK),
    *(errno.ENAMETOOLONG, errno.ENOSPC, errno.ENOTSUP, errno.EPERM, errno.EROFS),
)


def name_path(error: OSError, path: str) -> None:
    """Set the file name of an error of a file system to `path`.

    Errors of the network, from which content is read, are not changed.
    """
    if error.errno in _ON_DISK and not str(error.filename).startswith("/"):
        error.filename = path


def list_xattrs(place: str | int, *, follow_symlinks: bool = True) -> list[str]:
    """Return the names of the extended attributes of `place`; none if its file system has none."""
    try:
        return os.listxattr(place, follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOSYS):
            raise
        return []


def remove_tree(path: Path) -> None:
    """Delete the entry at `path`, at any depth; links are removed, not followed."""
    if not os.path.lexists(path):
        return
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_at(parent, path.name)
    finally:
        os.close(parent)


def remove_empty_parents(path: Path, root: Path) -> None:
    """Remove the directories above `path`, up to `root`, that are empty."""
    for directory in path.parents:
        if directory == root:
            return
        try:
            directory.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return  # it is not empty
