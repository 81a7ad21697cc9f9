"""Space that is kept free, so that snapshots can be removed when the disk is full."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_SIZES = tuple(1024 * size for size in (256, 128, 64, 32))
"""How many bytes are tried, largest first; a removal adds about 20 KiB to the log of SQLite."""


class Reserve:
    """A file that occupies space on the disk of the state, and is deleted when that is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_kept = False
        self.keep()

    def keep(self) -> None:
        """Occupy the space, if it is not occupied and the disk is not too full for it."""
        if self._is_kept:
            return
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._is_kept = any(_occupy(descriptor, size) for size in _SIZES)
            finally:
                os.close(descriptor)

    def release(self) -> bool:
        """Free the space; return whether there was any."""
        was_kept, self._is_kept = self._is_kept, False
        self._path.unlink(missing_ok=True)
        return was_kept


def _occupy(descriptor: int, size: int) -> bool:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.ftruncate(descriptor, 0)
        return False
    return True
