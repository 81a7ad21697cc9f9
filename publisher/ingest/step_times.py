"""How long each kind of step took in a run, measured from the events of its progress."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from publisher.ingest.report import Forwarding, Outcome, Progress


class StepTimes(Forwarding):
    """Progress that passes every event on, and adds up the seconds of each kind of step."""

    def __init__(self, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(progress)
        self._clock = clock
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._current: dict[str, tuple[str, float]] = {}

    @property
    def seconds(self) -> Mapping[str, float]:
        """The seconds of the steps that have ended, by kind, summed over all images."""
        with self._lock:
            return dict(self._seconds)

    def image_step(self, name: str, step: str) -> None:
        """End the image's step, and begin the next one."""
        with self._lock:
            self._end(name)
            self._current[name] = step, self._clock()
        super().image_step(name, step)

    def image_done(self, outcome: Outcome) -> None:
        """End the image's last step."""
        with self._lock:
            self._end(outcome.name)
        super().image_done(outcome)

    def _end(self, name: str) -> None:
        if name in self._current:
            step, began = self._current.pop(name)
            self._seconds[step] = self._seconds.get(step, 0.0) + self._clock() - began
