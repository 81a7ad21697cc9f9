"""What the CVMFS backend asks of the layer engine, which it does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Protocol

from publisher.entry import Entry, Fixup, TreeSink


class Recorder(TreeSink, Protocol):
    """Takes a layer's entries, and keeps what is needed to replay it."""

    def close(self) -> None:
        """Let go of open files."""


class LayerEngine(Protocol):
    """Layers from kept blobs. `publisher.layers.replay` is one."""

    def recorder(self, file: Path) -> Recorder:
        """What to unpack a layer into; what it notes goes to `file`."""

    def replay(
        self,
        chunks: Iterable[bytes],
        index: BinaryIO,
        order: Path,
        fixups: Iterable[Fixup],
        add: Callable[[Entry, Iterable[bytes | memoryview]], None],
        borrow: Callable[[Fixup], None],
    ) -> None:
        """Give a layer's final entries to `add` and `borrow`, directories first, each path once."""

    def entries(self, index: BinaryIO) -> Iterable[Entry]:
        """The entries of a layer index, sorted."""

    def catalogs(self, found: Iterable[Entry]) -> frozenset[str]:
        """In which directories of a tree, besides its root, nested catalogs should start."""
