"""Progress of an ingest on a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from publisher.cli.progress import Layer, Totals, print_step
from publisher.cli.rendering import message
from publisher.closing import Closing
from publisher.ingest.report import Outcome, Status

_NAME_WIDTH = 28
"""Columns for an image's name beside the bar of a layer, so that a line fits into 80 columns."""


def live_progress() -> LiveProgress:
    """Return the display for the terminal on stderr."""
    return LiveProgress(Console(stderr=True))


class LiveProgress(Closing):
    """A live display: a line per image with its step, a bar per layer, and a bar for the run."""

    def __init__(self, console: Console) -> None:
        self._lock = threading.Lock()
        self._totals = Totals()
        self._layers: dict[str, Layer] = {}
        self._image_tasks: dict[str, TaskID] = {}
        self._layer_tasks: dict[str, TaskID] = {}
        self._images = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), console=console
        )
        self._bars = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=10),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
        )
        self._sum = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
        )
        self._sum_task: TaskID | None = None
        self._live = Live(
            Group(self._images, self._bars, self._sum), console=console, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def close(self) -> None:
        """Erase the live lines and show the cursor again."""
        self._live.stop()

    def run_started(self, requests: int) -> None:
        """Store the number of requests."""
        with self._lock:
            self._totals.requests = requests

    def request_done(self) -> None:
        """Count the request."""
        with self._lock:
            self._totals.requests_done += 1
            self._update_sum()

    def image_step(self, name: str, step: str) -> None:
        """Show the step on the image's line."""
        text = f"{name}: {step}"
        with self._lock:
            if name in self._image_tasks:
                self._images.update(self._image_tasks[name], description=text)
            else:
                self._image_tasks[name] = self._images.add_task(text, total=None)

    def image_done(self, outcome: Outcome) -> None:
        """Remove the image's line; print the result above the live lines unless unchanged."""
        with self._lock:
            task = self._image_tasks.pop(outcome.name, None)
            if task is not None:
                self._images.remove_task(task)
        if outcome.status not in (Status.UNCHANGED, Status.WAITING):
            print_step(f"{outcome.name}: {outcome.status}")

    def layers_expected(self, name: str, sizes: Mapping[str, int]) -> None:
        """Count the layers as work to do."""
        with self._lock:
            self._totals.expect(name, sizes)
            self._update_sum()

    def layer_started(self, digest: str, size: int) -> None:
        """Add a bar, with the name of the image."""
        with self._lock:
            image = self._totals.images.get(digest, "")
            self._layers[digest] = Layer(image, size, time.monotonic())
            text = f"{_shortened(image)} {digest[7:15]}"
            self._layer_tasks[digest] = self._bars.add_task(text, total=size)

    def layer_advanced(self, digest: str, count: int) -> None:
        """Advance the bars of the layer and of the run."""
        with self._lock:
            self._layers[digest].received += count
            self._totals.received += count
            self._bars.advance(self._layer_tasks[digest], count)
            self._update_sum()

    def layer_done(self, digest: str) -> None:
        """Remove the layer's bar."""
        with self._lock:
            self._totals.finish(digest, self._layers.pop(digest))
            self._bars.remove_task(self._layer_tasks.pop(digest))
            self._update_sum()

    def notice(self, text: str) -> None:
        """Print the text above the live lines."""
        message(text)

    def _update_sum(self) -> None:
        totals = self._totals
        if not totals.layers:
            return
        text = (
            f"{totals.requests_done}/{totals.requests} requests, "
            f"{totals.layers_done}/{totals.layers} layers"
        )
        if self._sum_task is None:
            self._sum_task = self._sum.add_task(text, total=totals.bytes)
        self._sum.update(
            self._sum_task, description=text, total=totals.bytes, completed=totals.received
        )


def _shortened(name: str) -> str:
    """Return the end of an image's name, which differs more often than its beginning."""
    return name if len(name) <= _NAME_WIDTH else f"…{name[1 - _NAME_WIDTH :]}"
