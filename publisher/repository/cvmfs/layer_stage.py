"""One layer during its download: its blob, its index and the order of its contents."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from publisher.entry import Content, Entry
from publisher.layers.kept_contents import ContentsWriter, is_complete
from publisher.layers.replay import FileOrder
from publisher.repository.cvmfs.kept import KeptLayers, Memory
from publisher.repository.cvmfs.spool import SpoolFull, StagedLayer
from publisher.repository.disk import remove_if_empty, sync_filesystem
from publisher.repository.errors import DiskFull
from publisher.repository.layer_files import (
    LayerPlace,
    StagedFiles,
    check_files,
    open_unpacked_index,
)


def order_files(place: LayerPlace, memory: int | None) -> StagedFiles:
    """Return new files for a layer of which the order of contents is recorded.

    The contents are kept in the file `memory` as well, if there is one.
    """
    kept = None if memory is None else ContentsWriter(memory)
    return StagedFiles(place, lambda place: _SpooledOrder(place.order, kept), kept)


class CvmfsLayerStage:
    """One layer during its download, in the private `directory`; `finish` moves it to `staged`.

    `layer` is the name of the layer in errors. Its contents are also kept in `kept` if they fit.
    The blob is beside the place where the layer is unpacked, so that a worker process cannot write
    to it.
    """

    def __init__(self, directory: Path, staged: StagedLayer, layer: str, kept: KeptLayers) -> None:
        self._directory = directory
        self._staged = staged
        self._layer = layer
        self._kept = kept
        self._memory: Memory | None = None
        self.place = LayerPlace("order", directory / "unpacked")
        for each in (directory, self.place.directory):
            each.mkdir(mode=0o700)
        self._blob_file = directory / "blob"
        self._blob = self._blob_file.open("xb")

    @contextmanager
    def memory(self, blob_size: int) -> Iterator[int | None]:
        """Provide memory for the contents; None if there is not enough."""
        memory = self._memory = self._kept.reserve(blob_size)
        if memory is None:
            yield None
            return
        try:
            yield memory.descriptor
        finally:
            self._kept.complete(memory)

    def open_files(self) -> StagedFiles:
        """Return new files for the layer."""
        return order_files(self.place, self._memory.descriptor if self._memory else None)

    def keep(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the chunks of the blob, and store them."""
        for chunk in chunks:
            with self.full_disk_explained():
                self._blob.write(chunk)
            yield chunk

    def open_index(self) -> BinaryIO:
        """Open the index of the unpacked layer."""
        return open_unpacked_index(self.place)

    def finish(self) -> None:
        """Keep the layer, complete and verified, for the transaction that publishes it."""
        with self.full_disk_explained():
            self._blob.flush()
        self._blob.close()
        check_files(self.place, self._layer)
        remove_if_empty(self.place.tar_split)
        sync_filesystem(self._directory)
        self._staged.blob.parent.mkdir(mode=0o700, exist_ok=True)
        # The blob is moved last: the layer is staged once all three files exist.
        try:
            self.place.layer.rename(self._staged.directory)
        except OSError as error:
            # Another run staged the same layer first, with the same bytes.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        self.place.order.rename(self._staged.order)
        self._blob_file.rename(self._staged.blob)
        if self._memory is not None and is_complete(self._memory.descriptor):
            self._kept.keep(self._staged.name, self._memory)
            self._memory = None

    def close(self) -> None:
        """Close the blob, and free memory that is not kept. Calling it again has no effect."""
        if self._memory is not None:
            self._kept.give_back(self._memory)
            self._memory = None
        with suppress(OSError):  # an earlier write has reported the error
            self._blob.close()

    @contextmanager
    def full_disk_explained(self) -> Iterator[None]:
        """Convert an error of a full disk to SpoolFull."""
        try:
            yield
        except OSError as error:
            if not DiskFull.is_meant_by(error):
                raise
            stored = self._blob_file.stat().st_size if self._blob_file.exists() else 0
            raise SpoolFull(
                f"cannot keep a layer in {self._staged.blob.parent}",
                why=f"{error.strerror or error}, after {stored} bytes of the layer",
                hint="free space there for the compressed layers of a whole image, or set "
                "PUBLISHER_STATE to a directory on a larger disk",
            ) from error


class _SpooledOrder:
    """The order of contents in a file of the spool, whose disk may be full."""

    refused: Mapping[str, int] = {}

    def __init__(self, file: Path, kept: ContentsWriter | None) -> None:
        with _as_os_errors(file):
            self._order = FileOrder(file)
        self._file = file
        self._kept = kept

    def add(self, entry: Entry, content: Content = ()) -> None:
        """Record `entry`; its content is read only to keep it."""
        with _as_os_errors(self._file):
            self._order.add(entry, content)
        if self._kept is not None:
            self._kept.add(entry, content)

    def finish(self) -> None:
        """Write everything to the file."""
        with _as_os_errors(self._file):
            self._order.finish()

    def close(self) -> None:
        """Close the file."""
        self._order.close()


@contextmanager
def _as_os_errors(file: Path) -> Iterator[None]:
    """Convert the error of SQLite for a full disk to that of the file system."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(errno.ENOSPC, str(error), str(file)) from error
