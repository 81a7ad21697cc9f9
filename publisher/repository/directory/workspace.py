"""The state that all transactions of a directory repository share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from publisher.repository.directory import journal
from publisher.repository.directory.layer_places import find_layer, layer_gone
from publisher.repository.directory.linker import Link
from publisher.repository.directory.staging import Staging
from publisher.repository.lock import WriterLock


class Workspace:
    """The private side of a repository that is open for writing.

    `wait` (seconds), `on_wait` and `stop` are those of `WriterLock`. `link` links large flat images
    in another process.
    """

    def __init__(
        self,
        root: Path,
        staging: Staging,
        wait: float,
        on_wait: Callable[[str], None] | None,
        stop: threading.Event | None,
        link: Link | None,
    ) -> None:
        self.root = root
        self.link = link
        self.staging = staging
        self.lock = WriterLock(staging.directory, wait, on_wait, stop)

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
        found = find_layer(self.root, digest, self.staging.finished_layer(digest))
        if found is None:
            raise layer_gone(digest)
        return found
