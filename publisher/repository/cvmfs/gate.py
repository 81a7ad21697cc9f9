"""Reading through the mount, and the server that replaces it, take turns.

The server refuses to publish while any process has a file of the mounted repository open, and
changes the mount when it is done. Threads of ours that look into it wait meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Many read, or one publishes; who publishes goes before those that come to read."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._publishing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read for a moment."""
        with self._changed:
            self._changed.wait_for(lambda: not self._publishing)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Keep readers out."""
        with self._changed:
            self._changed.wait_for(lambda: not self._publishing)
            self._publishing = True
            self._changed.wait_for(lambda: self._readers == 0)
        try:
            yield
        finally:
            with self._changed:
                self._publishing = False
                self._changed.notify_all()
