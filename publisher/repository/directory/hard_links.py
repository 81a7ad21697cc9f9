"""Hard links, and copies where the file system refuses another link."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from publisher.closing import Closing
from publisher.repository.descriptors import pool_size
from publisher.repository.directory.nodes import NO_LINK, NodeMaker

_NODE_ITSELF = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_FULL = 160
"""How many files with the maximum of links are remembered (65,000 links each on ext4).

Fewer under a low limit of open files; each takes two descriptors.
"""

_Inode = tuple[int, int]


class HardLinks(Closing):
    """Gives files further names. A file with the maximum of links is copied once, then the copy.

    Otherwise a small archive could fill any disk: 512 bytes of it make one more name of a file, and
    each name beyond the maximum would be a copy. Close it, or use it as a context manager.
    """

    def __init__(self, maker: NodeMaker) -> None:
        self._maker = maker
        self._most_full = max(2, min(_MOST_FULL, pool_size() * 5 // 2))
        # Descriptors of a full file, so that its inode number is not reused, and of its copy.
        self._full: dict[_Inode, tuple[int, int]] = {}

    def close(self) -> None:
        """Close everything. May be called again."""
        for descriptors in self._full.values():
            for descriptor in descriptors:
                os.close(descriptor)
        self._full.clear()

    def add(self, parent: int, name: str, source: int, source_name: str) -> bool:
        """Link `name` to `source_name`; False if it was copied instead."""
        if self._maker.link(parent, name, source, source_name):
            return True
        with _opened(source, source_name) as (full, inode):
            known = self._full.get(inode)
            if known is not None and _link_open(known[1], parent, name):
                return True
            self._maker.copy(parent, name, source, source_name)
            self._forget(inode)
            copy = os.open(name, _NODE_ITSELF, dir_fd=parent)
            self._full[inode] = os.dup(full), copy
        return False

    def _forget(self, inode: _Inode) -> None:
        if inode not in self._full and len(self._full) >= self._most_full:
            inode = next(iter(self._full))
        for descriptor in self._full.pop(inode, ()):
            os.close(descriptor)


@contextmanager
def _opened(directory: int, name: str) -> Iterator[tuple[int, _Inode]]:
    descriptor = os.open(name, _NODE_ITSELF, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        yield descriptor, (status.st_dev, status.st_ino)
    finally:
        os.close(descriptor)


def _link_open(descriptor: int, parent: int, name: str) -> bool:
    """Link an open file; False if it has no name any more or too many links."""
    try:
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=parent, follow_symlinks=True)
    except OSError as error:
        if error.errno not in (errno.ENOENT, *NO_LINK):
            raise
        return False
    return True
