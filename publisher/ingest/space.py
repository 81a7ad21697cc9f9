"""Disk space: checked before a download, and explained in errors when it is used up."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable

from publisher.errors import PublisherError
from publisher.layers.index import read_header
from publisher.repository import DiskFull, Repository, RepositoryChanged

UNPACKED_RATIO = 2.5
"""The usual ratio of the size of a layer on disk to its download; few layers have a smaller one."""

_DIRECTORY_SIZE = 4096
"""Bytes of each entry of a flat image: an upper bound, since only directories take space."""


class NotEnoughSpace(PublisherError):
    """The repository's file system has not enough space for an image.

    `needed` is about how many bytes are needed, and `free` how many are free. Both are None if
    inodes are missing instead of bytes, and `free` is None if it is unknown (a quota).
    """

    def __init__(
        self, what: str, *, needed: float | None, free: int | None, why: str, hint: str
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.needed = None if needed is None else round(needed)
        self.free = free


class DiskSpace:
    """Reserves the space for the pending downloads of all images of a run.

    Sizes are in bytes.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._to_come = 0

    def expect(self, size: int) -> None:
        """Reserve space for a download; raise NotEnoughSpace if that is more than is free.

        The unpacked layer is probably larger; its size is known only after the download.
        """
        with self._lock:
            free = self._repository.free_space()
            wanted = self._to_come + size
            if free is not None and wanted > free:
                raise NotEnoughSpace(
                    f"cannot store an image in {self._repository.url}",
                    needed=wanted,
                    free=free,
                    why=f"{_size(wanted)} are still to be downloaded, {_size(free)} are free: "
                    f"{_size(wanted - free)} are missing, and probably "
                    f"{_size(wanted * UNPACKED_RATIO - free)} once it is unpacked",
                    hint="free some space, for example by `publisher gc`; nothing was changed",
                )
            self._to_come = wanted

    def arrived(self, size: int) -> None:
        """Release `size` of the reserved bytes: they are stored, or will not be downloaded."""
        with self._lock:
            self._to_come -= size

    def explained_download(self, error: OSError, size: int) -> Exception:
        """Return the exception to raise for `error`, which ended a download of `size` bytes."""
        return self._explained(error, size * UNPACKED_RATIO)

    def explained_linking(self, error: OSError, layers: Iterable[str]) -> Exception:
        """Return the exception to raise for `error`, which ended the publishing of `layers`."""
        if not DiskFull.is_meant_by(error):
            return error
        entries = 0
        for digest in layers:
            try:
                with self._repository.open_index(digest) as file:
                    entries += read_header(file).entries
            except RepositoryChanged:
                continue  # a staged layer that was discarded with the transaction
        return self._explained(error, entries * _DIRECTORY_SIZE)

    def _explained(self, error: OSError, wanted: float) -> Exception:
        if not DiskFull.is_meant_by(error):
            return error
        # Space may have been freed since the error occurred, so what was free then is preferred.
        known = error if isinstance(error, DiskFull) else None
        free = known.free_bytes if known else self._repository.free_space() or 0
        if known and known.free_inodes == 0:
            return NotEnoughSpace(
                f"cannot store an image in {self._repository.url}",
                needed=None,
                free=None,
                why=f"{error.strerror}: all inodes are in use (df -i shows them)",
                hint="free some, for example by `publisher gc`: an image takes an inode for each "
                "of its files; the published tree is unchanged",
            )
        if error.errno == errno.EDQUOT:
            return NotEnoughSpace(
                f"cannot store an image in {self._repository.url}",
                needed=wanted,
                free=None,
                why=f"{error.strerror}; about {_size(wanted)} were needed",
                hint="raise the quota, or free some space by `publisher gc`; the published tree is "
                "unchanged",
            )
        if (
            wanted <= free
        ):  # the layer is larger, compared with its download, than layers usually are
            return NotEnoughSpace(
                f"cannot store an image in {self._repository.url}",
                needed=None,
                free=free,
                why=f"{error.strerror}; only {_size(free)} were free at that moment, and the "
                "unpacked image needs more",
                hint="free some space, for example by `publisher gc`; the published tree is "
                "unchanged",
            )
        return NotEnoughSpace(
            f"cannot store an image in {self._repository.url}",
            needed=wanted,
            free=free,
            why=f"{error.strerror}; {_size(free)} are free, about {_size(wanted)} were needed: "
            f"some {_size(wanted - free)} are missing",
            hint="free some space, for example by `publisher gc`; the published tree is unchanged",
        )


def _size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"
