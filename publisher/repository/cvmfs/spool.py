"""Layers between their download and their publication, and the limit of their total size.

A layer is staged as its compressed blob; it is not unpacked to disk. The index is made while the
blob arrives, and the blob is read again when it is sent, unless its contents are in memory
(`kept`).

Space is reserved per image, not per layer: an image needs all its layers at once, and images with a
part of the space each would wait for each other forever. Reservations are granted in the order of
their requests. An image that exceeds the limit by itself is admitted if no other image of this
process has a reservation.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from publisher.lazy import dataclass
from publisher.repository import OutOfSpace
from publisher.tree import layout

DEFAULT_LIMIT = 20 * 10**9
"""Bytes."""

_POLL_SECONDS = 0.5
"""Seconds between checks for space that other processes have freed."""

_PIECE = 1 << 20


class SpoolFull(OutOfSpace):
    """The disk has no space for the compressed layers of an image."""


@dataclass(frozen=True, slots=True)
class StagedLayer:
    """The files of a staged layer: its `directory` for the mirror, and its `blob`."""

    directory: Path
    blob: Path

    @property
    def name(self) -> str:
        """The name of the layer here."""
        return self.directory.name

    @property
    def index(self) -> Path:
        """The layer's index."""
        return self.directory / layout.LAYER_INDEX

    @property
    def tar_split(self) -> Path:
        """The layer's tar-split data, which not every layer has."""
        return self.directory / layout.LAYER_TAR_SPLIT

    @property
    def packages(self) -> Path:
        """The record of the layer's packages, which not every layer has."""
        return self.directory / layout.LAYER_PACKAGES

    @property
    def order(self) -> Path:
        """The order of file contents in the archive, for `publisher.layers.replay`."""
        return self.blob.with_suffix(".order")

    def is_complete(self) -> bool:
        """Return whether the layer can be published from here."""
        return self.index.exists() and self.blob.exists() and self.order.exists()

    def chunks(self) -> Iterator[bytes]:
        """Yield the blob's bytes."""
        with self.blob.open("rb") as file:
            while chunk := file.read(_PIECE):
                yield chunk

    def delete_blob(self) -> None:
        """Delete the blob and the order, which are not needed once the layer is published."""
        self.blob.unlink(missing_ok=True)
        self.order.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A staged layer that no image of this process needs."""

    name: str
    size: int
    since: float


class Spool:
    """Grants space in the directory `blobs`, and in the sessions of downloads.

    Args:
        blobs: The compressed layers that are waiting to be published.
        session: The directory of this process' unfinished work, beside those of other processes.
        limit: The limit in bytes, like all sizes here.
        discard: Deletes the layer with that name; returns False if that is not possible now.
        free_space: Returns the free bytes of the disk, or None if unknown.
        forget: Frees what is in memory of the layer with that name.
    """

    def __init__(
        self,
        blobs: Path,
        session: Path,
        limit: int,
        discard: Callable[[str], bool],
        free_space: Callable[[], int | None],
        forget: Callable[[str], None],
    ) -> None:
        self._blobs = blobs
        self._session = session
        self._limit = limit
        self._discard = discard
        self._free_space = free_space
        self._forget = forget
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._admitted: list[Mapping[str, int]] = []

    @contextmanager
    def reserve(
        self, layers: Mapping[str, int], keep_waiting: Callable[[], None]
    ) -> Iterator[None]:
        """Reserve space for `layers` (sizes by name) of one image, until the block ends.

        Layers that no other image of this process needs are then forgotten: either they are
        published, or their image has failed.

        `keep_waiting` is called repeatedly while this waits; an exception from it ends the wait.
        """
        if not layers:
            yield
            return
        self._wait(layers, keep_waiting)
        try:
            yield
        finally:
            with self._changed:
                self._admitted = [each for each in self._admitted if each is not layers]
                for name in layers.keys() - set().union(*self._admitted):
                    self._forget(name)
                self._changed.notify_all()

    def _wait(self, layers: Mapping[str, int], keep_waiting: Callable[[], None]) -> None:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or not self._fits(layers):
                    self._changed.wait(_POLL_SECONDS)
                    keep_waiting()
                self._admitted.append(layers)
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _fits(self, layers: Mapping[str, int]) -> bool:
        """Return whether there is space; discard layers that no image needs if necessary."""
        claimed = {name: size for each in (*self._admitted, layers) for name, size in each.items()}
        staged = self._staged()
        to_come = sum(size for name, size in layers.items() if name not in staged)
        others = sorted(
            (kept for name, kept in staged.items() if name not in claimed),
            key=lambda kept: kept.since,
            reverse=True,
        )
        beside, oldest_run = self._other_runs()
        while True:
            used = sum(claimed.values()) + sum(kept.size for kept in others) + beside
            free = self._free_space()
            if used <= self._limit and (free is None or to_come <= free):
                return True
            if not others or others[-1].since >= oldest_run or not self._discard(others[-1].name):
                return not self._admitted
            others.pop()

    def _staged(self) -> dict[str, _Kept]:
        """Return all finished layers by name."""
        found: dict[str, _Kept] = {}
        for path in self._blobs.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # published in the meantime
            name = path.stem
            size = found[name].size if name in found else 0
            found[name] = _Kept(name, size + status.st_size, status.st_mtime)
        return found

    def _other_runs(self) -> tuple[int, float]:
        """Return the bytes of downloads of other processes, and when the oldest began."""
        size, began = 0, float("inf")
        for session in self._session.parent.iterdir():
            if session == self._session or not session.is_dir():
                continue
            try:
                began = min(began, session.stat().st_ctime)
                size += sum(blob.stat().st_size for blob in session.glob("*/blob"))
            except FileNotFoundError:
                continue  # ended in the meantime
        return size, began
