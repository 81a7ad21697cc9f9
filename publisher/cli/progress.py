"""Progress of an ingest on stderr: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from publisher.cli.rendering import message
from publisher.closing import Closing
from publisher.ingest.report import Outcome, Silent, Status
from publisher.ingest.report import Progress as IngestProgress
from publisher.lazy import dataclass
from publisher.sizes import human_size


class Display(IngestProgress, AbstractContextManager["Display"], Protocol):
    """Progress that occupies the terminal between entering and leaving its context."""

    def close(self) -> None:
        """Restore the terminal. Nothing is displayed from then on; further calls do nothing."""


class _Plain(Closing):
    """A display that has nothing to restore."""

    def close(self) -> None:
        """Do nothing."""


class QuietProgress(_Plain, Silent):
    """No progress, for --quiet and --no-progress."""


@dataclass(slots=True)
class Layer:
    """A layer that is being downloaded. Sizes are in bytes, `began` in monotonic seconds."""

    image: str
    size: int
    began: float
    received: int = 0


class Totals:
    """The counts of a run: what is expected, and what is done. Calls need a lock."""

    def __init__(self) -> None:
        self.requests = self.requests_done = 0
        self.layers = self.layers_done = 0
        self.bytes = self.received = 0
        self.images: dict[str, str] = {}
        """The image for which each expected layer is downloaded, by digest."""

    def expect(self, image: str, sizes: Mapping[str, int]) -> None:
        """Count the layers that are downloaded for `image` as work to do."""
        for digest, size in sizes.items():
            self.images[digest] = image
            self.layers += 1
            self.bytes += size

    def finish(self, digest: str, layer: Layer) -> None:
        """Count the layer as done; the missing bytes of a failed download are not expected."""
        self.images.pop(digest, None)
        self.layers_done += 1
        self.bytes += layer.received - layer.size


class PlainProgress(_Plain):
    """Prints a line per step of an image and per finished layer; none for unchanged images."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = Totals()
        self._layers: dict[str, Layer] = {}

    def run_started(self, requests: int) -> None:
        """Store the number of requests."""
        with self._lock:
            self._totals.requests = requests

    def request_done(self) -> None:
        """Count the request."""
        with self._lock:
            self._totals.requests_done += 1

    def image_step(self, name: str, step: str) -> None:
        """Print the step, except "resolving", which is the only one of unchanged images."""
        if step != "resolving":
            print_step(f"{name}: {step}")

    def image_done(self, outcome: Outcome) -> None:
        """Print the result for an image, unless it is unchanged or was not tried."""
        if outcome.status not in (Status.UNCHANGED, Status.WAITING):
            with self._lock:
                count = f"{self._totals.requests_done + 1} of {self._totals.requests}"
            print_step(f"{outcome.name}: {outcome.status} ({count})")

    def layers_expected(self, name: str, sizes: Mapping[str, int]) -> None:
        """Count the layers as work to do, and print how much that is."""
        if not sizes:
            return
        with self._lock:
            self._totals.expect(name, sizes)
        count = f"{len(sizes)} layer" + "s" * (len(sizes) != 1)
        print_step(f"{name}: {count} to fetch, {human_size(sum(sizes.values()))}")

    def layer_started(self, digest: str, size: int) -> None:
        """Store the time at which the download began, for its rate."""
        with self._lock:
            image = self._totals.images.get(digest, "")
            self._layers[digest] = Layer(image, size, time.monotonic())

    def layer_advanced(self, digest: str, count: int) -> None:
        """Count the bytes."""
        with self._lock:
            self._layers[digest].received += count
            self._totals.received += count

    def layer_done(self, digest: str) -> None:
        """Print the layer's image, size and rate, and the progress of the run."""
        with self._lock:
            layer = self._layers.pop(digest)
            self._totals.finish(digest, layer)
            totals = f"{self._totals.layers_done} of {self._totals.layers} layers, "
            totals += f"{human_size(self._totals.received)} of {human_size(self._totals.bytes)}"
        rate = layer.received / max(time.monotonic() - layer.began, 1e-3)
        print_step(
            f"{layer.image}: layer {digest[:19]}: {human_size(layer.received)}, "
            f"{human_size(rate)}/s ({totals})"
        )

    def notice(self, text: str) -> None:
        """Print the text."""
        message(text)


def print_step(text: str) -> None:
    """Print a line about an image on stderr."""
    message(text, prefix="")
