"""The state that all transactions of a directory repository share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from publisher.repository import LayerChanged
from publisher.repository.directory import journal
from publisher.repository.directory.staging import Staging
from publisher.repository.lock import WriterLock
from publisher.tree import layout


class Workspace:
    """The private side of a repository that is open for writing.

    `wait` (seconds) and `on_wait` are those of `WriterLock`.
    """

    def __init__(
        self, root: Path, staging: Staging, wait: float, on_wait: Callable[[str], None] | None
    ) -> None:
        self.root = root
        self.staging = staging
        self.lock = WriterLock(staging.directory, wait, on_wait)

    def recover(self) -> None:
        """Finish or discard what an ended process left; a live writer has already done it."""
        if self.staging.needs_sweep():
            with self.lock.hold("recovery after an interrupted run", wait=False) as held:
                if held:
                    self.settle()
            self.staging.empty_trash()

    def settle(self) -> None:
        """Execute the journal if there is one, and sweep. The caller holds the writer lock."""
        journal.apply(self.root, self.staging.journal)
        self.staging.sweep()

    def locate_layer(self, digest: str) -> Path:
        """Return the path of a published or staged layer; LayerChanged if it is neither."""
        found = find_layer(self.root, digest, self.staging)
        if found is None:
            raise layer_gone(digest)
        return found


def find_layer(root: Path, digest: str, staging: Staging | None) -> Path | None:
    """Return the directory of a published layer, or of one in `staging` if given; else None."""
    published = root / layout.layer_directory(digest)
    places = [published]
    if staging is not None:
        # A commit between the first two checks moves it from `layers/` to its published place.
        places += [staging.finished_layer(digest), published]
    return next((place for place in places if (place / layout.LAYER_INDEX).exists()), None)


def layer_gone(digest: str) -> LayerChanged:
    """Return the error for a layer that is neither published nor staged any more."""
    return LayerChanged(digest, why="it was collected while this image was prepared")
