"""Decide whether and when a request is tried again."""

from __future__ import annotations

import random

from publisher.lazy import dataclass

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""The statuses of temporary failures. All others are answers."""
MAX_TRIES = 5
MAX_WAIT = 300.0
"""The longest wait in seconds that a registry may request."""

LONGEST_BACKOFF = 5
"""The try after which the back-off is constant: 8 to 16 seconds."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A temporary failure; `wait` are the seconds that the server requested to wait."""

    why: str
    wait: float | None = None
    is_unreachable: bool = False
    is_rate_limit: bool = False


@dataclass(slots=True)
class Tries:
    """The tries of one request."""

    base_delay: float
    began: float
    """When the first try began, by the clock of the exchange."""
    count: int = 0
    waited: float = 0.0
    """The seconds of waits that the server requested so far."""

    def pause_after(self, fault: Fault, *, is_down: bool) -> float | None:
        """Return the seconds until the next try, or None after the last one."""
        asked = fault.wait is not None and self.waited < MAX_WAIT and self.count < 2 * MAX_TRIES
        if not asked and self.count >= (1 if is_down else MAX_TRIES):
            return None
        pause = backoff(min(self.count, LONGEST_BACKOFF), self.base_delay)
        if fault.wait is not None:
            pause = max(pause, fault.wait)
            self.waited += pause
        return pause


def backoff(tries: int, base: float) -> float:
    """Return the seconds before the next try: doubled each time, with jitter."""
    return float(base * 2 ** (tries - 1) * random.uniform(0.5, 1.0))
