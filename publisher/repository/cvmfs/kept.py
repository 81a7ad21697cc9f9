"""Memory for the contents of layers between their download and their publication."""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from contextlib import suppress
from pathlib import Path

from publisher.closing import Closing

DEFAULT_LIMIT = 256 * 2**20
"""Bytes of all layers together."""

_SHARE = 8
"""The default limit is at most this fraction of the usable memory: without space to swap, the
system cannot take back what is kept, and ends a process instead."""

_LARGEST = 128 * 2**20
"""The most bytes of one layer, so that a large one does not take the memory of several."""

_OWN_GROUPS = Path("/proc/self/cgroup")
_ALL_GROUPS = Path("/sys/fs/cgroup")

_USUAL_RATIO = 2
"""Most archives are at least this many times as large as their blobs."""

_RARE_RATIO = 8
"""Few archives are more than this many times as large as their blobs, apart from small ones."""

_SMALLEST = 2**20
"""What every layer gets, since small archives with few different bytes have larger ratios."""


def default_limit() -> int:
    """Return the limit in bytes for this process, by the memory that it may use."""
    return min(DEFAULT_LIMIT, _usable_memory() // _SHARE)


def _usable_memory() -> int:
    """Return the bytes of the machine's memory, or of the smallest limit of its control groups."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(FileNotFoundError):
        for line in _OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "memory":  # version 1
                root, name = _ALL_GROUPS / "memory", "memory.limit_in_bytes"
            else:
                root, name = _ALL_GROUPS, "memory.max"
            # In a container, only a part of the path exists, or nothing but the root.
            for group in (path, *Path(path).parents):
                with suppress(OSError, ValueError):  # "max"
                    found.append(int((root / str(group).lstrip("/") / name).read_text()))
    return min(found)


class KeptLayers(Closing):
    """The contents of staged layers in the memory of this process, at most `limit` bytes.

    The contents of other layers are read from the spool again. Layers have the names of the spool.
    Safe to use from several threads.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._lock = threading.Lock()
        self._kept: dict[str, Memory] = {}

    def reserve(self, blob_size: int) -> Memory | None:
        """Return memory for a layer whose blob has `blob_size` bytes; None if there is too little.

        The caller passes it to `complete`, and to `keep` or `give_back`.
        """
        with self._lock:
            size = min(self._left, _LARGEST, _SMALLEST + _RARE_RATIO * blob_size)
            if size <= 0 or _USUAL_RATIO * blob_size > size:
                return None
            try:
                memory = Memory(size)
            except OSError:  # a system without such files
                return None
            self._left -= size
            return memory

    def complete(self, memory: Memory) -> None:
        """Take no more of `memory` than is used; nothing writes to it any more."""
        memory.seal()
        with self._lock:
            self._left += memory.size
            memory.size = memory.used()
            self._left -= memory.size

    def keep(self, name: str, memory: Memory) -> None:
        """Keep `memory` as that of the layer `name`, if it is certain that nothing changes it."""
        with self._lock:
            self._free(self._kept.pop(name, None))
            if memory.readable:
                self._kept[name] = memory
            else:
                self._free(memory)

    def give_back(self, memory: Memory) -> None:
        """Free memory that was not kept."""
        with self._lock:
            self._free(memory)

    def mapped(self, name: str) -> mmap.mmap | None:
        """Return the memory of a layer for reading; None if it was not kept, or cannot be read."""
        with self._lock, suppress(OSError):  # a limit of the address space, or of descriptors
            memory = self._kept.get(name)
            if memory is not None:
                return mmap.mmap(memory.descriptor, memory.readable, access=mmap.ACCESS_READ)
        return None

    def forget(self, name: str) -> None:
        """Free the memory of a layer, if there is any. A reader that has mapped it keeps it."""
        with self._lock:
            self._free(self._kept.pop(name, None))

    def close(self) -> None:
        """Free the memory of all layers."""
        with self._lock:
            while self._kept:
                self._free(self._kept.popitem()[1])

    def _free(self, memory: Memory | None) -> None:
        if memory is not None:
            self._left += memory.size
            os.close(memory.descriptor)


class Memory:
    """A file in memory without a name, of `size` bytes, which are taken when they are written.

    The process that has its `descriptor` can neither truncate nor extend it. `readable` is how many
    bytes from its beginning can be read once it is sealed.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.readable = 0
        self.descriptor = os.memfd_create("layer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, size)
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        except OSError:
            os.close(self.descriptor)
            raise

    def seal(self) -> None:
        """Forbid that it is written to, unless some process still has it in its memory."""
        with suppress(OSError):
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
            # A hole takes memory when it is read, beyond what `used` returns, or the process gets
            # SIGBUS if the machine has none.
            self.readable = os.lseek(self.descriptor, 0, os.SEEK_HOLE)

    def used(self) -> int:
        """Return how many bytes it takes."""
        return os.fstat(self.descriptor).st_blocks * 512
