"""Progress of an ingest on stderr: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)

from publisher.cli.rendering import human_size
from publisher.errors import printable
from publisher.ingest.report import Outcome, Silent, Status


def progress_for(
    quiet: bool,
) -> AbstractContextManager[Silent | PlainProgress | LiveProgress]:
    """The right kind of progress for where stderr goes."""
    if quiet:
        return nullcontext(Silent())
    console = Console(stderr=True)
    return LiveProgress(console) if console.is_terminal else nullcontext(PlainProgress())


class PlainProgress:
    """A line per step of an image and per finished layer; unchanged images say nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._layers: dict[str, tuple[float, int]] = {}

    def image_step(self, name: str, step: str) -> None:
        """Say it, but for looking whether there is anything to do."""
        if step != "resolving":
            click.echo(f"{name}: {step}", err=True)

    def image_done(self, outcome: Outcome) -> None:
        """Say what became of the image, unless nothing did."""
        if outcome.status is not Status.UNCHANGED:
            click.echo(f"{outcome.name}: {outcome.status}", err=True)

    def layer_started(self, digest: str, size: int) -> None:
        """Remember when, for the rate."""
        with self._lock:
            self._layers[digest] = (time.monotonic(), 0)

    def layer_advanced(self, digest: str, count: int) -> None:
        """Count."""
        with self._lock:
            began, so_far = self._layers[digest]
            self._layers[digest] = (began, so_far + count)

    def layer_done(self, digest: str) -> None:
        """Say how much it was, and how fast it came."""
        with self._lock:
            began, count = self._layers.pop(digest)
        rate = count / max(time.monotonic() - began, 1e-3)
        click.echo(f"layer {digest[:19]}: {human_size(count)}, {human_size(rate)}/s", err=True)

    def notice(self, text: str) -> None:
        """Say it."""
        click.echo(f"publisher: {printable(text)}", err=True)


class LiveProgress:
    """Bars on a terminal: a line per image with its step, a bar with bytes and rate per layer."""

    def __init__(self, console: Console) -> None:
        self._lock = threading.Lock()
        self._images: dict[str, TaskID] = {}
        self._layers: dict[str, TaskID] = {}
        self._image_lines = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), console=console, transient=True
        )
        self._bars = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            transient=True,
        )
        self._live: AbstractContextManager[object] | None = None
        self._console = console

    def __enter__(self) -> LiveProgress:
        from rich.console import Group
        from rich.live import Live

        self._live = Live(
            Group(self._image_lines, self._bars), console=self._console, transient=True
        )
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._live is not None
        self._live.__exit__(kind, error, traceback)

    def image_step(self, name: str, step: str) -> None:
        """Show the step on the image's line."""
        with self._lock:
            text = f"{name}: {step}"
            if name in self._images:
                self._image_lines.update(self._images[name], description=text)
            else:
                self._images[name] = self._image_lines.add_task(text, total=None)

    def image_done(self, outcome: Outcome) -> None:
        """Take the image's line away, and leave a word about it unless nothing happened."""
        with self._lock:
            task = self._images.pop(outcome.name, None)
            if task is not None:
                self._image_lines.remove_task(task)
        if outcome.status is not Status.UNCHANGED:
            self._console.print(f"{outcome.name}: {outcome.status}", markup=False, highlight=False)

    def layer_started(self, digest: str, size: int) -> None:
        """Begin a bar."""
        with self._lock:
            self._layers[digest] = self._bars.add_task(digest[:19], total=size)

    def layer_advanced(self, digest: str, count: int) -> None:
        """Move the bar."""
        self._bars.advance(self._layers[digest], count)

    def layer_done(self, digest: str) -> None:
        """Take the bar away."""
        with self._lock:
            self._bars.remove_task(self._layers.pop(digest))

    def notice(self, text: str) -> None:
        """Say it above the bars."""
        self._console.print(f"publisher: {printable(text)}", markup=False, highlight=False)
