"""Clocks for tests, which need no time to pass."""

from __future__ import annotations

import datetime
import threading

from publisher.sources.http.clock import Clock

_START = 1000.0
_DATE = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


class _OwnTime(Clock):
    """A time of its own, which `advance` changes."""

    def __init__(self) -> None:
        self._now = _START
        self._changed = threading.Condition()

    def monotonic(self) -> float:
        with self._changed:
            return self._now

    def utc_now(self) -> datetime.datetime:
        return _DATE + datetime.timedelta(seconds=self.monotonic() - _START)

    def advance(self, seconds: float) -> None:
        with self._changed:
            self._now += seconds
            self._changed.notify_all()


class SkippingClock(_OwnTime):
    """Each wait is over at once. `waits` has the seconds of each wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, seconds: float, ended: threading.Event) -> None:
        self.waits.append(seconds)
        self.advance(seconds)


class StoppedClock(_OwnTime):
    """A thread that waits does so until the test advances the clock far enough."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        """Threads that wait now."""

    def wait(self, seconds: float, ended: threading.Event) -> None:
        with self._changed:
            end = self._now + seconds
            self.waiting += 1
            while self._now < end and not ended.is_set():
                self._changed.wait(0.05)  # `ended` is set without a notification
            self.waiting -= 1


class WatchedClock(Clock):
    """The clock of the machine; `waiting` is set as soon as a thread begins to wait."""

    def __init__(self) -> None:
        self.waiting = threading.Event()

    def wait(self, seconds: float, ended: threading.Event) -> None:
        self.waiting.set()
        super().wait(seconds, ended)
