"""One layer while it is unpacked: private until it is complete and verified."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from publisher.layers.index import read_index
from publisher.repository.directory.opaque_marks import mark_for_root
from publisher.repository.directory.tree_writer import TreeWriter
from publisher.repository.disk import remove_if_empty, sync_filesystem
from publisher.repository.layer_files import (
    LayerPlace,
    StagedFiles,
    check_files,
    open_unpacked_index,
)


def tree_files(place: LayerPlace) -> StagedFiles:
    """Return new files for a layer whose tree is written."""
    return StagedFiles(place, lambda place: TreeWriter(place.tree))


class DirectoryLayerStage:
    """A layer in the private directory `directory`, which is made; `finish` moves it to `finished`.

    `layer` is the name of the layer in errors.
    """

    def __init__(self, directory: Path, finished: Path, layer: str) -> None:
        directory.mkdir(mode=0o700)
        self._finished = finished
        self._layer = layer
        self._is_by_a_worker = True
        self.place = LayerPlace("tree", directory)

    def memory(self, blob_size: int) -> AbstractContextManager[None]:
        """Provide none: contents are written to the tree."""
        return nullcontext()

    def open_files(self) -> StagedFiles:
        """Return new files for the layer."""
        self._is_by_a_worker = False
        return tree_files(self.place)

    def keep(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """Return `chunks`: a copy of the blob is not needed."""
        return chunks

    def open_index(self) -> BinaryIO:
        """Open the index of the unpacked layer."""
        return open_unpacked_index(self.place)

    def finish(self) -> None:
        """Keep the complete, verified layer for the transaction that publishes it."""
        check_files(self.place, self._layer)
        remove_if_empty(self.place.tar_split)
        if self._is_by_a_worker and os.geteuid() == 0:
            with self.open_index() as index:
                mark_for_root(self.place.tree, read_index(index))
        # On disk before it gets its final name: the next run trusts what has that name.
        sync_filesystem(self.place.layer)
        if not self._finished.exists():
            try:
                self.place.layer.rename(self._finished)
            except OSError:
                # Another run may have finished the same layer first, with the same bytes.
                if not self._finished.exists():
                    raise
