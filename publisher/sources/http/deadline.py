"""The time that one image may wait for a server, over all its requests."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from publisher.sources import SourceError
from publisher.sources.http.clock import Clock

RATE = 64 * 1024
"""Bytes per second. A download of at least this rate does not use up the time."""


class OutOfTime(SourceError):
    """A server did not deliver an image within the configured time."""


class Deadline:
    """The time that an image has left to wait for a server. Safe to use from several threads.

    Time counts while at least one request of the image waits for a connection, for data, or for the
    end of a back-off. The time for processing data does not count. Each RATE bytes that arrive add
    one second again, up to `seconds`. A large image may therefore take hours, but not an image from
    a server that sends one byte per second.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._used = 0.0
        self._waiting = 0
        self._since = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time within the `with`, once for all threads that wait at the same time."""
        with self._lock:
            self._settle()
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._settle()
                self._waiting -= 1

    def received(self, count: int) -> None:
        """Add the time for `count` received bytes."""
        with self._lock:
            self._settle()
            self._used = max(0.0, self._used - count / RATE)

    @property
    def left(self) -> float:
        """The remaining seconds; negative after the end."""
        with self._lock:
            self._settle()
            return self.seconds - self._used

    def check(self, what: str, last: str, wait: float = 0.0) -> None:
        """Raise OutOfTime if there are not `wait` seconds left.

        Args:
            what: The `what` of the error ("cannot fetch …").
            last: The reason of the wait, such as the last status.
            wait: The least number of seconds for the next step.
        """
        if self.left < wait:
            raise OutOfTime(
                what,
                why=f"it was not served within {self.seconds:.0f} s ({last})",
                hint="run again later, or set a longer image-timeout in the configuration",
            )

    def _settle(self) -> None:
        now = self._clock.monotonic()
        if self._waiting:
            self._used += now - self._since
        self._since = now
