"""One layer while it is unpacked: private until it is complete and verified."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from publisher.repository.directory.tree_writer import TreeWriter
from publisher.repository.disk import (
    PUBLIC_FILE_MODE,
    make_directories,
    remove_if_empty,
    sync_filesystem,
)
from publisher.tree import layout


class DirectoryLayerStage:
    """A layer in the private directory `directory`: a tree written by `sink`, and its index.

    `finish` moves it to `finished`.
    """

    def __init__(self, directory: Path, finished: Path) -> None:
        self._directory = directory
        self._finished = finished
        tree = directory / layout.LAYER_TREE
        index = directory / layout.LAYER_INDEX
        make_directories(tree)
        make_directories(index.parent)
        directory.chmod(0o755)
        self.sink = TreeWriter(tree)
        self.index: BinaryIO = index.open("xb")
        os.fchmod(self.index.fileno(), PUBLIC_FILE_MODE)
        self._tar_split: BinaryIO | None = None

    def open_tar_split(self) -> BinaryIO:
        """Return a new file for the layer's tar-split data."""
        self._tar_split = (self._directory / layout.LAYER_TAR_SPLIT).open("xb")
        os.fchmod(self._tar_split.fileno(), PUBLIC_FILE_MODE)
        return self._tar_split

    def keep(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """Return `chunks`: a copy of the blob is not needed."""
        return chunks

    def finish(self) -> Mapping[str, int]:
        """Keep the complete, verified layer for the transaction that publishes it.

        Returns how often the file system did not store something, by its kind.
        """
        self.close()
        remove_if_empty(self._directory / layout.LAYER_TAR_SPLIT)
        # On disk before it gets its final name: the next run trusts what has that name.
        sync_filesystem(self._directory)
        if not self._finished.exists():
            try:
                self._directory.rename(self._finished)
            except OSError:
                # Another run may have finished the same layer first, with the same bytes.
                if not self._finished.exists():
                    raise
        return self.sink.refused

    def close(self) -> None:
        """Close the files that are open."""
        self.sink.close()
        self.index.close()
        if self._tar_split is not None:
            self._tar_split.close()
