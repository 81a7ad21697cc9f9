"""A bar on a terminal, for a command that reads many things."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from publisher.closing import Closing

if TYPE_CHECKING:  # slow to import
    from rich.progress import Progress


class Bar(Closing):
    """A bar on stderr, if that is a terminal; it is shown from the first call of `show`.

    Args:
        what: What it counts.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._progress: Progress | None = None

    def show(self, done: int, total: int) -> None:
        """Show how many of all are done."""
        if not total or not sys.stderr.isatty():
            return
        if self._progress is None:
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._progress.add_task(self._what)
            self._progress.start()
        self._progress.update(self._progress.task_ids[0], completed=done, total=total)

    def close(self) -> None:
        """Remove the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
