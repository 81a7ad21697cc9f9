"""Layers between their download and their publication, and the limit of their total size.

A layer is staged as its compressed blob; it is not unpacked to disk. The index is made while the
blob arrives, and the blob is read again when it is sent.

Space is reserved per image, not per layer: an image needs all its layers at once, and images with a
part of the space each would wait for each other forever. Reservations are granted in the order of
their requests. An image that exceeds the limit by itself is admitted if no other image of this
process has a reservation.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from publisher.entry import Content, Entry
from publisher.layers.replay import FileOrder
from publisher.repository import OutOfSpace
from publisher.repository.disk import make_directories, remove_if_empty, sync_filesystem
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
    def index(self) -> Path:
        """The layer's index."""
        return self.directory / layout.LAYER_INDEX

    @property
    def tar_split(self) -> Path:
        """The layer's tar-split data, which not every layer has."""
        return self.directory / layout.LAYER_TAR_SPLIT

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


class CvmfsLayerStage:
    """One layer during its download, in the private `directory`; `finish` moves it to `staged`."""

    def __init__(self, directory: Path, staged: StagedLayer) -> None:
        self._directory = directory
        self._staged = staged
        self._arriving = StagedLayer(directory / "layer", directory / "blob")
        make_directories(self._arriving.directory / layout.LAYER_TREE)
        make_directories(self._arriving.index.parent)
        self._blob = self._arriving.blob.open("xb")
        self.index: BinaryIO = self._arriving.index.open("xb")
        os.fchmod(self.index.fileno(), 0o644)
        self._tar_split: BinaryIO | None = None
        self.sink = _SpooledOrder(self._arriving.order, self._full_disk_explained)

    def open_tar_split(self) -> BinaryIO:
        """Return a new file for the layer's tar-split data."""
        with self._full_disk_explained():
            self._tar_split = self._arriving.tar_split.open("xb")
        os.fchmod(self._tar_split.fileno(), 0o644)
        return self._tar_split

    def keep(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the chunks of the blob, and store them."""
        for chunk in chunks:
            with self._full_disk_explained():
                self._blob.write(chunk)
            yield chunk

    def finish(self) -> Mapping[str, int]:
        """Keep the layer, complete and verified, for the transaction that publishes it."""
        with self._full_disk_explained():
            self._blob.flush()
        self.close()
        remove_if_empty(self._arriving.tar_split)
        sync_filesystem(self._directory)
        self._staged.blob.parent.mkdir(mode=0o700, exist_ok=True)
        # The blob is moved last: the layer is staged once all three files exist.
        try:
            self._arriving.directory.rename(self._staged.directory)
        except OSError as error:
            # Another run staged the same layer first, with the same bytes.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        self._arriving.order.rename(self._staged.order)
        self._arriving.blob.rename(self._staged.blob)
        return {}

    def close(self) -> None:
        """Close all files. Calling it again has no effect."""
        self.sink.close()
        self.index.close()
        if self._tar_split is not None:
            self._tar_split.close()
        with suppress(OSError):  # an earlier write has reported the error
            self._blob.close()

    @contextmanager
    def _full_disk_explained(self) -> Iterator[None]:
        """Convert an error of a full disk to SpoolFull."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise self._full(error.strerror or str(error)) from error
        except sqlite3.OperationalError as error:
            raise self._full(str(error)) from error

    def _full(self, reason: str) -> SpoolFull:
        return SpoolFull(
            f"cannot keep a layer in {self._staged.blob.parent}",
            why=f"{reason}, after {self._blob.raw.tell()} bytes of the layer",
            hint="free space there for the compressed layers of a whole image, or set "
            "PUBLISHER_STATE to a directory on a larger disk",
        )


class _SpooledOrder(FileOrder):
    """The order of contents in a file of the spool, whose disk may be full."""

    def __init__(self, file: Path, explained: Callable[[], AbstractContextManager[None]]) -> None:
        self._explained = explained
        with explained():
            super().__init__(file)

    def add(self, entry: Entry, content: Content = ()) -> None:
        """Record `entry`; its content is not read."""
        with self._explained():
            super().add(entry, content)

    def finish(self) -> None:
        """Write everything to the file."""
        with self._explained():
            super().finish()


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
    """

    def __init__(
        self,
        blobs: Path,
        session: Path,
        limit: int,
        discard: Callable[[str], bool],
        free_space: Callable[[], int | None],
    ) -> None:
        self._blobs = blobs
        self._session = session
        self._limit = limit
        self._discard = discard
        self._free_space = free_space
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._admitted: list[Mapping[str, int]] = []

    @contextmanager
    def reserve(
        self, layers: Mapping[str, int], keep_waiting: Callable[[], None]
    ) -> Iterator[None]:
        """Reserve space for `layers` (sizes by name) of one image, until the block ends.

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
