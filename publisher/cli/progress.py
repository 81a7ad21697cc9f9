"""Progress of an ingest on stderr: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

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

from publisher.cli.rendering import human_size, message
from publisher.ingest.report import Outcome, Silent, Status
from publisher.ingest.report import Progress as IngestProgress

_NAME_WIDTH = 28
"""Columns for an image's name beside the bar of a layer, so that a line fits into 80 columns."""


class Display(IngestProgress, AbstractContextManager["Display"], Protocol):
    """Progress that occupies the terminal between entering and leaving its context."""

    def close(self) -> None:
        """Restore the terminal. Nothing is displayed from then on; further calls do nothing."""


def progress_for(quiet: bool) -> Display:
    """Return the display for where stderr goes: none with --quiet, live on a terminal.

    With --debug the log has the terminal, and progress is plain lines.
    """
    if quiet:
        return QuietProgress()
    console = Console(stderr=True)
    debugging = logging.getLogger("publisher").isEnabledFor(logging.DEBUG)
    return LiveProgress(console) if console.is_terminal and not debugging else PlainProgress()


class _Plain:
    """A display that has nothing to restore."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing."""


class QuietProgress(_Plain, Silent):
    """No progress, as --quiet asks."""


@dataclass(slots=True)
class _Layer:
    """A layer that is being downloaded. Sizes are in bytes, `began` in monotonic seconds."""

    image: str
    size: int
    began: float
    received: int = 0


class _Totals:
    """What the run has to do and has done so far. The caller holds the lock."""

    def __init__(self) -> None:
        self.requests = self.requests_done = 0
        self.layers = self.layers_done = 0
        self.bytes = self.received = 0
        self.images: dict[str, str] = {}
        """The image for which each expected layer is downloaded, by digest."""

    def expect(self, image: str, sizes: Mapping[str, int]) -> None:
        for digest, size in sizes.items():
            self.images[digest] = image
            self.layers += 1
            self.bytes += size

    def finish(self, digest: str, layer: _Layer) -> None:
        """Count the layer as done; what a failed one did not deliver is expected no more."""
        self.images.pop(digest, None)
        self.layers_done += 1
        self.bytes += layer.received - layer.size


class PlainProgress(_Plain):
    """A line per step of an image and per finished layer; unchanged images have none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = _Totals()
        self._layers: dict[str, _Layer] = {}

    def run_started(self, requests: int) -> None:
        """Remember how many requests there are."""
        with self._lock:
            self._totals.requests = requests

    def request_done(self) -> None:
        """Count the request."""
        with self._lock:
            self._totals.requests_done += 1

    def image_step(self, name: str, step: str) -> None:
        """Print the step, except for the one in which most images turn out to be unchanged."""
        if step != "resolving":
            _print(f"{name}: {step}")

    def image_done(self, outcome: Outcome) -> None:
        """Print the result for an image, unless it is unchanged."""
        if outcome.status is not Status.UNCHANGED:
            with self._lock:
                count = f"{self._totals.requests_done + 1} of {self._totals.requests}"
            _print(f"{outcome.name}: {outcome.status} ({count})")

    def layers_expected(self, name: str, sizes: Mapping[str, int]) -> None:
        """Count the layers as work to do, and print how much that is."""
        if not sizes:
            return
        with self._lock:
            self._totals.expect(name, sizes)
        count = f"{len(sizes)} layer" + "s" * (len(sizes) != 1)
        _print(f"{name}: {count} to fetch, {human_size(sum(sizes.values()))}")

    def layer_started(self, digest: str, size: int) -> None:
        """Remember when the download began, for its rate."""
        with self._lock:
            image = self._totals.images.get(digest, "")
            self._layers[digest] = _Layer(image, size, time.monotonic())

    def layer_advanced(self, digest: str, count: int) -> None:
        """Count the bytes."""
        with self._lock:
            self._layers[digest].received += count
            self._totals.received += count

    def layer_done(self, digest: str) -> None:
        """Print the layer's image, size and rate, and how far the run is."""
        with self._lock:
            layer = self._layers.pop(digest)
            self._totals.finish(digest, layer)
            totals = f"{self._totals.layers_done} of {self._totals.layers} layers, "
            totals += f"{human_size(self._totals.received)} of {human_size(self._totals.bytes)}"
        rate = layer.received / max(time.monotonic() - layer.began, 1e-3)
        _print(
            f"{layer.image}: layer {digest[:19]}: {human_size(layer.received)}, "
            f"{human_size(rate)}/s ({totals})"
        )

    def notice(self, text: str) -> None:
        """Print it."""
        message(text)


class LiveProgress:
    """A live display: a line per image with its step, a bar per layer, and a bar for the run."""

    def __init__(self, console: Console) -> None:
        self._lock = threading.Lock()
        self._totals = _Totals()
        self._layers: dict[str, _Layer] = {}
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Erase the live lines and show the cursor again."""
        self._live.stop()

    def run_started(self, requests: int) -> None:
        """Remember how many requests there are."""
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
        if outcome.status is not Status.UNCHANGED:
            _print(f"{outcome.name}: {outcome.status}")

    def layers_expected(self, name: str, sizes: Mapping[str, int]) -> None:
        """Count the layers as work to do."""
        with self._lock:
            self._totals.expect(name, sizes)
            self._update_sum()

    def layer_started(self, digest: str, size: int) -> None:
        """Add a bar, with the name of the image."""
        with self._lock:
            image = self._totals.images.get(digest, "")
            self._layers[digest] = _Layer(image, size, time.monotonic())
            text = f"{_shortened(image)} {digest[7:15]}"
            self._layer_tasks[digest] = self._bars.add_task(text, total=size)

    def layer_advanced(self, digest: str, count: int) -> None:
        """Move the layer's bar and the run's."""
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
        """Print it above the live lines."""
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


def _print(text: str) -> None:
    message(text, prefix="")


def _shortened(name: str) -> str:
    """The end of an image's name, which tells it from others more often than its beginning."""
    return name if len(name) <= _NAME_WIDTH else f"…{name[1 - _NAME_WIDTH :]}"
