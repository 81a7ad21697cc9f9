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
"""The largest number of full files that are kept open, each with its copy: two descriptors each.

A file is full if it has as many links as its file system allows (65,000 on ext4). A low limit of
open files reduces the number.
"""

_Inode = tuple[int, int]


class HardLinks(Closing):
    """Adds hard links to files, and copies a file that has the maximum number of links.

    Further links are links to that copy, until it is full as well. If every link beyond the maximum
    were a copy, a small archive could fill any disk: each entry of 512 bytes would add one. Use it
    as a context manager, or call `close`.
    """

    def __init__(self, maker: NodeMaker) -> None:
        self._maker = maker
        self._most_full = max(2, min(_MOST_FULL, pool_size() * 5 // 2))
        # The descriptors of each full file and its copy. An open file keeps its inode number.
        self._full: dict[_Inode, tuple[int, int]] = {}

    def close(self) -> None:
        """Close all descriptors. Further calls do nothing."""
        for descriptors in self._full.values():
            for descriptor in descriptors:
                os.close(descriptor)
        self._full.clear()

    def add(self, parent: int, name: str, source: int, source_name: str) -> bool:
        """Create the link `name` to `source_name`; return False if it is a copy instead."""
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
    """Link an open file; return False if it was deleted or has too many links."""
    try:
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=parent, follow_symlinks=True)
    except OSError as error:
        if error.errno not in (errno.ENOENT, *NO_LINK):
            raise
        return False
    return True
