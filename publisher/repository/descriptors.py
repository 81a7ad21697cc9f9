"""Directories by descriptor, so that no link in an image can redirect a path.

A path is opened name by name, each relative to the descriptor of its parent and without following
links. So nothing outside the tree can be reached, whatever the tree contains.
"""

from __future__ import annotations

import errno
import itertools
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from publisher.closing import Closing

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_RESERVED = 64
"""Descriptors for everything else: standard streams, locks, sockets, libraries."""

_LARGEST_POOL = 64
_PER_JOB = 32
"""Descriptors of one job beside its directories: layer indexes, temporary databases, sockets."""


def raise_limit(most: int = 65536) -> None:
    """Raise this process' limit of open files as far as allowed, up to `most`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def pool_size() -> int:
    """Return how many directories one worker may keep open: 64, or fewer under a low limit."""
    return max(4, min(_LARGEST_POOL, (_limit() - _RESERVED) // 24))


def source_pool_size() -> tuple[int, int]:
    """Return how many layer trees one worker may keep open, and how many directories in each."""
    size = pool_size()
    return max(2, size // 4), max(2, size // 8)


def jobs_within_limit(jobs: int) -> int:
    """Return `jobs`, or as many as the limit of open files (`ulimit -n`) allows; at least one."""
    trees, directories = source_pool_size()
    per_job = 2 * pool_size() + trees * (1 + directories) + _PER_JOB
    return max(1, min(jobs, (_limit() - _RESERVED) // per_job))


def connections_within_limit(connections: int) -> int:
    """Return `connections`, or fewer: jobs and databases need half of the limit of open files."""
    return min(connections, _limit() // 2)


def _limit() -> int:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**20 if soft == resource.RLIM_INFINITY else soft


class Directories(Closing):
    """Descriptors of directories below `root`; the `capacity` most recently used stay open.

    The default capacity depends on the limit of open files.
    A descriptor that `open` returned is valid until two others have been opened.
    """

    def __init__(self, root: Path, capacity: int | None = None) -> None:
        self._capacity = max(2, capacity or pool_size())
        self.root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: dict[str, int] = {}
        self._latest: tuple[str, int] = "", self.root

    def close(self) -> None:
        """Close all descriptors. May be called again."""
        self._latest = "", -1
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        if self.root >= 0:
            os.close(self.root)
            self.root = -1

    def open(self, path: str) -> int:
        """Return a descriptor of the directory `path`; raise OSError if it is not one."""
        latest, descriptor = self._latest
        if path == latest:
            return descriptor
        if not path:
            return self.root
        found = self._open.pop(path, None)
        self.keep(path, self._walk(path) if found is None else found)
        return self._latest[1]

    def open_file(self, path: str) -> BinaryIO:
        """Open the file `path` for reading; raise OSError if it is anything else."""
        above, _, name = path.rpartition("/")
        # Opening a FIFO would wait for its writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=self.open(above))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is not a file", path)
        return os.fdopen(descriptor, "rb")

    def keep(self, path: str, descriptor: int) -> None:
        """Keep and later close `descriptor`, which the caller opened for `path`."""
        if len(self._open) >= self._capacity:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[path] = descriptor
        self._latest = path, descriptor

    def forget(self, path: str) -> None:
        """Close the descriptors at and below `path`, which is about to be removed."""
        below = f"{path}/"
        self._latest = "", self.root
        for known in [p for p in self._open if p == path or p.startswith(below)]:
            os.close(self._open.pop(known))

    def _walk(self, path: str) -> int:
        above, known = path, self.root
        while above := above.rpartition("/")[0]:
            if above in self._open:
                known = self._open[above]
                break
        descriptor = known
        for name in path[len(above) :].lstrip("/").split("/"):
            try:
                below = os.open(name, DIRECTORY, dir_fd=descriptor)
            finally:
                if descriptor != known:
                    os.close(descriptor)
            descriptor = below
        return descriptor


def remove_at(parent: int, name: str) -> None:
    """Remove `name` in the directory `parent`, and if it is a directory, everything below it.

    Needs two descriptors and no recursion however deep the tree is: directories are moved up into
    the topmost one before they are emptied.
    """
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    top = _open_to_empty(parent, name)
    try:
        prefix = f".{os.urandom(16).hex()}."  # no name in the tree begins with it
        numbers = itertools.count()
        waiting = _empty(top, top, prefix, numbers)
        while waiting:
            directory = _open_to_empty(top, waiting[-1])
            try:
                moved = _empty(directory, top, prefix, numbers)
            finally:
                os.close(directory)
            if not moved:
                os.rmdir(waiting.pop(), dir_fd=top)
            waiting += moved
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _open_to_empty(parent: int, name: str) -> int:
    """Open a directory and make it writable, which it may not be for an ordinary user."""
    try:
        descriptor = os.open(name, DIRECTORY, dir_fd=parent)
    except PermissionError:
        _make_writable(parent, name)
        descriptor = os.open(name, DIRECTORY, dir_fd=parent)
    if os.fstat(descriptor).st_mode & 0o300 != 0o300:
        with suppress(PermissionError):  # it belongs to another user
            os.fchmod(descriptor, 0o700)
    return descriptor


def _make_writable(parent: int, name: str) -> None:
    if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.chmod(name, 0o700, dir_fd=parent)


def _empty(directory: int, top: int, prefix: str, numbers: Iterator[int]) -> list[str]:
    """Unlink the files in `directory`, and move directories in it to `top`; their new names.

    Not all of them are moved if `top` cannot hold more (ext2: 32,000); if it is full at once, they
    are removed where they are.
    """
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    moved: list[str] = []
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
            continue
        new = f"{prefix}{next(numbers)}"
        try:
            try:
                os.rename(name, new, src_dir_fd=directory, dst_dir_fd=top)
            except PermissionError:  # of an ordinary user: a rename changes its ".."
                _make_writable(directory, name)
                os.rename(name, new, src_dir_fd=directory, dst_dir_fd=top)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            if moved:
                break
            remove_at(directory, name)
            continue
        moved.append(new)
    return moved
