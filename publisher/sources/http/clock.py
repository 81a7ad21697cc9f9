"""The time, and waiting: everything here that depends on a clock uses one `Clock`.

Waits of minutes, such as a registry asks for, are tested with a clock that does not wait.
"""

from __future__ import annotations

import datetime
import threading
import time


class Clock:
    """The clock of the machine."""

    def monotonic(self) -> float:
        """Return seconds since an unspecified moment; they never decrease."""
        return time.monotonic()

    def utc_now(self) -> datetime.datetime:
        """Return the date and time."""
        return datetime.datetime.now(datetime.UTC)

    def wait(self, seconds: float, ended: threading.Event) -> None:
        """Return after `seconds`, or as soon as `ended` is set."""
        ended.wait(seconds)
