"""Signed requests that are sent again: an identical one is accepted once within an hour.

A signature is over the body alone, so that a recorded request could be sent again at any time
without the secret. Requests that are not signed have the secret itself.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

SECONDS = 3600.0
_MOST = 10_000


class Replays:
    """The bodies that were accepted, by their digests; `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accepted: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def is_known(self, hook: str, body: bytes) -> bool:
        """Return whether the hook has accepted this body within the last hour."""
        now = self._clock()
        with self._lock:
            while self._accepted and now - next(iter(self._accepted.values())) > SECONDS:
                self._accepted.popitem(last=False)
            return _key(hook, body) in self._accepted

    def accept(self, hook: str, body: bytes) -> None:
        """Remember a body whose jobs are queued."""
        with self._lock:
            self._accepted[_key(hook, body)] = self._clock()
            self._accepted.move_to_end(_key(hook, body))
            if len(self._accepted) > _MOST:
                self._accepted.popitem(last=False)


def _key(hook: str, body: bytes) -> bytes:
    return hashlib.sha256(hook.encode() + b"\0" + body).digest()
