"""Room on the disk: looked at before a download, and explained when it was not enough after all."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable

from publisher.errors import PublisherError
from publisher.layers.index import read_header
from publisher.repository import DiskFull, Repository, RepositoryChanged

UNPACKED_RATIO = 2.5
"""How many times larger than its download a layer usually is on disk. Few are smaller than that."""

_DIRECTORY_SIZE = 4096
"""A flat image has its own directories, and of everything else links. How many of a layer's entries
are directories is not known, so that this is more than enough."""


class NotEnoughSpace(PublisherError):
    """The repository's filesystem has no room for an image."""


class DiskSpace:
    """What all images of a run still have to download into a repository, and the room for it.

    Sizes are in bytes.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._to_come = 0

    def expect(self, size: int) -> None:
        """Set room aside for a download; NotEnoughSpace if what is free cannot even hold that.

        Unpacked it will probably be larger, which only the download can show.
        """
        with self._lock:
            free = self._repository.free_space()
            wanted = self._to_come + size
            if free is not None and wanted > free:
                raise NotEnoughSpace(
                    f"no room in {self._repository.url}",
                    why=f"{_size(wanted)} are still to be downloaded, {_size(free)} are free: "
                    f"{_size(wanted - free)} are missing, and probably "
                    f"{_size(wanted * UNPACKED_RATIO - free)} once it is unpacked",
                    hint="free some space, or let `publisher gc` do it; nothing was changed",
                )
            self._to_come = wanted

    def arrived(self, size: int) -> None:
        """Count down: so much of what was expected is on the disk, or will not come."""
        with self._lock:
            self._to_come -= size

    def explained_download(self, error: OSError, size: int) -> Exception:
        """What to raise for `error`, which ended something of which `size` was to be downloaded."""
        return self._explained(error, size * UNPACKED_RATIO)

    def explained_linking(self, error: OSError, layers: Iterable[str]) -> Exception:
        """What to raise for `error`, which ended the publishing of these layers (digests)."""
        if not DiskFull.is_meant_by(error):
            return error
        entries = 0
        for digest in layers:
            try:
                with self._repository.open_index(digest) as file:
                    entries += read_header(file).entries
            except RepositoryChanged:
                continue  # it was half completed, and is gone with the transaction
        return self._explained(error, entries * _DIRECTORY_SIZE)

    def _explained(self, error: OSError, wanted: float) -> Exception:
        if not DiskFull.is_meant_by(error):
            return error
        # Clean-up may have freed since what was used up when the error occurred.
        known = error if isinstance(error, DiskFull) else None
        free = known.free_bytes if known else self._repository.free_space() or 0
        if known and known.free_inodes == 0:
            return NotEnoughSpace(
                f"no room in {self._repository.url}",
                why=f"{error.strerror}: all inodes are in use (df -i shows them)",
                hint="free some, or let `publisher gc` do it: an image takes an inode for each of "
                "its files; the published tree is as it was",
            )
        if error.errno == errno.EDQUOT:
            return NotEnoughSpace(
                f"no room in {self._repository.url}",
                why=f"{error.strerror}; about {_size(wanted)} were needed",
                hint="raise the quota, or let `publisher gc` free some; the published tree is as "
                "it was",
            )
        return NotEnoughSpace(
            f"no room in {self._repository.url}",
            why=f"{error.strerror}; {_size(free)} are free, about {_size(wanted)} were needed: "
            f"some {_size(max(wanted - free, 0))} are missing",
            hint="free some space, or let `publisher gc` do it; the published tree is as it was",
        )


def _size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"
