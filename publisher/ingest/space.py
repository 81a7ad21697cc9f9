"""Disk space: which images may use it at the same time, and errors that explain that it is used up.

An image reserves space before its layers are fetched, and releases it once it is published. Images
that may not fit together wait for each other:

- Reservations are granted in the order of their requests, so that no image waits forever.
- The first of the waiting images is admitted at the latest when no other has a reservation. An
  image with a reservation never waits for one without, so there is always one that can proceed.
- An image that ran out of space while others had reservations is tried once more alone, when all
  other reservations have ended. It fails only if it does not fit beside what is published then.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from publisher.lazy import dataclass
from publisher.repository import DiskFull, OutOfSpace, Repository, RepositoryChanged

UNPACKED_RATIO = 2.5
"""The usual ratio of the size of a layer on disk to its download; few layers have a smaller one."""

_DIRECTORY_SIZE = 4096
"""Bytes of each entry of a flat image: an upper bound, since only directories take space."""

_POLL_SECONDS = 0.5
"""Seconds between checks for space that other programs have freed."""


class NotEnoughSpace(OutOfSpace):
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


@dataclass(eq=False, slots=True)
class Reservation:
    """The space that one image has reserved.

    Attributes:
        layers: The sizes of the image's layers in bytes, by digest.
        alone: Whether no other image may have a reservation at the same time.
        was_shared: Whether another image had a reservation at some moment of this one.
    """

    layers: Mapping[str, int]
    alone: bool = False
    was_shared: bool = False


class DiskSpace:
    """The reservations of all images of a run, and the progress of their downloads.

    Sizes are in bytes. Safe to use from several threads.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._changed = threading.Condition()
        self._queue: deque[Reservation] = deque()
        self._admitted: list[Reservation] = []
        self._to_come: dict[str, int] = {}  # of layers that are being downloaded

    @contextmanager
    def reserve(
        self, layers: Mapping[str, int], keep_waiting: Callable[[], None], *, alone: bool = False
    ) -> Iterator[Reservation]:
        """Reserve space for an image until the block ends; wait for other images if necessary.

        Args:
            layers: The sizes of the image's layers by digest.
            keep_waiting: Called repeatedly while this waits; an exception from it ends the wait.
            alone: Wait until no other image has a reservation, and admit no other one.
        """
        reservation = Reservation(layers, alone)
        self._wait(reservation, keep_waiting)
        try:
            yield reservation
        finally:
            with self._changed:
                self._admitted.remove(reservation)
                self._changed.notify_all()

    def _wait(self, reservation: Reservation, keep_waiting: Callable[[], None]) -> None:
        with self._changed:
            self._queue.append(reservation)
            try:
                while self._queue[0] is not reservation or not self._fits(reservation):
                    keep_waiting()
                    self._changed.wait(_POLL_SECONDS)
                for other in self._admitted:
                    other.was_shared = reservation.was_shared = True
                self._admitted.append(reservation)
            finally:
                self._queue.remove(reservation)
                self._changed.notify_all()

    def _fits(self, reservation: Reservation) -> bool:
        """Return whether the image probably fits beside those that have a reservation."""
        if not self._admitted:
            return True
        if reservation.alone or any(other.alone for other in self._admitted):
            return False
        free = self._repository.free_space()
        missing = self._missing([*self._admitted, reservation])
        return free is None or missing * UNPACKED_RATIO <= free

    def _missing(self, reservations: Iterable[Reservation]) -> int:
        """Return how many bytes are still to be downloaded; a shared layer counts once."""
        sizes = {digest: size for each in reservations for digest, size in each.layers.items()}
        return sum(
            max(0, self._to_come.get(digest, size))
            for digest, size in sizes.items()
            if not self._repository.has_layer(digest)
        )

    def require(self) -> None:
        """Raise NotEnoughSpace if more is still to be downloaded for all images than is free.

        An unpacked layer is probably larger; its size is known only after the download.
        """
        with self._changed:
            free = self._repository.free_space()
            wanted = self._missing(self._admitted)
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

    def began(self, digest: str, size: int) -> None:
        """Note that the download of a layer begins."""
        with self._changed:
            self._to_come[digest] = size

    def arrived(self, digest: str, count: int) -> None:
        """Note that `count` bytes of a layer are stored."""
        with self._changed:
            self._to_come[digest] -= count

    def ended(self, digest: str) -> None:
        """Note that the download of a layer has ended: the layer is staged, or discarded."""
        with self._changed:
            del self._to_come[digest]

    def explained_download(self, error: OSError, size: int) -> Exception:
        """Return the exception to raise for `error`, which ended a download of `size` bytes."""
        return self._explained(error, size * UNPACKED_RATIO)

    def explained_linking(self, error: OSError, layers: Iterable[str]) -> Exception:
        """Return the exception to raise for `error`, which ended the publishing of `layers`."""
        if not DiskFull.is_meant_by(error):
            return error
        from publisher.layers.index import read_header

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
