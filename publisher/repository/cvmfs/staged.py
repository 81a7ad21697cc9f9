"""A layer between its download and its publication: its blob, compressed as it came.

Nothing is unpacked. The index is made while the blob comes in, and the blob is read again when it
is sent.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from publisher.errors import PublisherError
from publisher.repository.cvmfs.engine import LayerEngine
from publisher.repository.disk import make_directories, sync_filesystem
from publisher.tree import layout

_PIECE = 1 << 20


class SpoolFull(PublisherError):
    """There is no room for the compressed layers of an image on their way."""


@dataclass(frozen=True, slots=True)
class StagedLayer:
    """Where a staged layer lies: `directory` will be its place in the shadow, `blob` its bytes."""

    directory: Path
    blob: Path

    @property
    def index(self) -> Path:
        """The layer's index."""
        return self.directory / layout.LAYER_INDEX

    @property
    def order(self) -> Path:
        """What the engine noted for the replay."""
        return self.blob.with_suffix(".order")

    def is_complete(self) -> bool:
        """Whether it can be published from here."""
        return self.index.exists() and self.blob.exists() and self.order.exists()

    def chunks(self) -> Iterator[bytes]:
        """The blob's bytes."""
        with self.blob.open("rb") as file:
            while chunk := file.read(_PIECE):
                yield chunk

    def forget_blob(self) -> None:
        """Delete what nobody needs once the layer is published."""
        self.blob.unlink(missing_ok=True)
        self.order.unlink(missing_ok=True)


class CvmfsLayerStage:
    """One layer coming in."""

    def __init__(self, directory: Path, staged: StagedLayer, engine: LayerEngine) -> None:
        self._directory = directory
        self._staged = staged
        self._coming = StagedLayer(directory / "layer", directory / "blob")
        make_directories(self._coming.directory / layout.LAYER_TREE)
        make_directories(self._coming.index.parent)
        self._blob = self._coming.blob.open("xb")
        self.index: BinaryIO = self._coming.index.open("xb")
        os.fchmod(self.index.fileno(), 0o644)
        self.sink = engine.recorder(self._coming.order)

    def keep(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass the blob on, and keep it."""
        for chunk in chunks:
            with self._explained():
                self._blob.write(chunk)
            yield chunk

    def finish(self) -> Mapping[str, int]:
        """Keep the layer, complete and verified, for the transaction that publishes it."""
        with self._explained():
            self._blob.flush()
        self.close()
        sync_filesystem(self._directory)
        self._staged.blob.parent.mkdir(mode=0o700, exist_ok=True)
        # The blob last: the layer is staged once all three are there.
        try:
            self._coming.directory.rename(self._staged.directory)
        except OSError as error:
            # Another run was quicker, with the same bytes.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        self._coming.order.rename(self._staged.order)
        self._coming.blob.rename(self._staged.blob)
        return {}

    def close(self) -> None:
        """Let go of open files."""
        self.sink.close()
        self.index.close()
        with suppress(OSError):  # what is not written is of no use, and said already
            self._blob.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what it means that the blob cannot be written, where room is what it lacks."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise SpoolFull(
                f"cannot keep a layer in {self._staged.blob.parent}",
                why=f"{error.strerror}, after {self._blob.raw.tell()} bytes of it",
                hint="make room there: an image's compressed layers wait in it until all of "
                "them have come; or set PUBLISHER_STATE to a larger disk",
            ) from error
