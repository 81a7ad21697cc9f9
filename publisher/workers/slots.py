"""Which layers are unpacked at a time: the largest first, since they take longest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_WAKE_SECONDS = 0.1
"""Seconds between calls of `keep_going` while a slot is waited for."""

_LATER_SECONDS = 1.0
"""How much later than a smaller layer a larger one may be announced, to precede it."""

_KEPT_SECONDS = 0.1
_KEPT_BYTES = 8 * 2**20
"""How long a free slot is kept for a layer that does not arrive yet, and the smallest such layer.

The layer may be waiting for a connection that a smaller one has, which then waits for it.
"""


class Slots:
    """`count` slots, each for one layer. Safe to use from several threads."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._changed = threading.Condition()
        self._announced: list[_Layer] = []

    @contextmanager
    def announced(self, size: int) -> Iterator[_Layer]:
        """Announce that a layer of `size` bytes will need a slot."""
        layer = _Layer(size)
        with self._changed:
            self._announced.append(layer)
        try:
            yield layer
        finally:
            self._withdraw(layer)

    @contextmanager
    def taken(self, layer: _Layer, keep_going: Callable[[], None]) -> Iterator[None]:
        """Wait for a slot, and hold it; `keep_going` is called repeatedly during the wait."""
        with self._changed:
            layer.is_waiting = True
            while self._free <= sum(each.precedes(layer) for each in self._announced):
                self._changed.wait(_WAKE_SECONDS)
                keep_going()
            self._free -= 1
        try:
            self._withdraw(layer)
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def _withdraw(self, layer: _Layer) -> None:
        with self._changed:
            if layer in self._announced:
                self._announced.remove(layer)
                self._changed.notify_all()


class _Layer:
    """A layer of `size` bytes that was announced and has no slot yet."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._since = time.monotonic()
        self.is_waiting = False

    def precedes(self, other: _Layer) -> bool:
        """Return whether a free slot is for this layer rather than for `other`.

        A layer does not wait for all larger ones of a run: only for those that were announced by
        then, and hardly for one that does not arrive yet.
        """
        if self._size <= other._size or self._since > other._since + _LATER_SECONDS:
            return False
        is_kept = self._size >= _KEPT_BYTES and time.monotonic() < self._since + _KEPT_SECONDS
        return self.is_waiting or is_kept
