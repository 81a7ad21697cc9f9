"""How long one image may wait for a server, over all its requests."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from publisher.sources import SourceError
from publisher.sources.http.clock import Clock

RATE = 64 * 1024
"""Bytes per second: a download that is at least this fast uses none of the time."""


class OutOfTime(SourceError):
    """A server did not serve an image in the time that its settings allow."""


class Deadline:
    """The time that an image has left to wait for a server. Safe to use from several threads.

    Time counts while at least one request of the image waits: for a connection, for the next
    bytes, or for the end of a back-off. The time that the receiver of the bytes takes does not
    count. Each RATE bytes that arrive give one second back, up to the whole `seconds`: a large
    image may take hours, and a server that sends one byte a second ends it after `seconds`.
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
        """Count the time within the `with`, once for all threads that wait together."""
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
        """Give back the time that `count` bytes are worth."""
        with self._lock:
            self._settle()
            self._used = max(0.0, self._used - count / RATE)

    @property
    def left(self) -> float:
        """Seconds that are left; negative when the time is over."""
        with self._lock:
            self._settle()
            return self.seconds - self._used

    def check(self, what: str, last: str, wait: float = 0.0) -> None:
        """Raise OutOfTime if there are not `wait` seconds left.

        Args:
            what: What cannot be done ("cannot fetch …").
            last: Why the server has to be waited for, such as its last status.
            wait: Seconds that the next step takes at least.
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
