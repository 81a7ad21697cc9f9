"""The bound on what waits to be published: layers of images of which others still come.

Room is given to images and not to layers: an image needs all of its layers at once, and halves of
images would wait for each other for ever. It is given in the order in which it was asked for. One
image always comes through, however large it is: it is then the only one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DEFAULT_LIMIT = 20 * 10**9
"""Bytes."""

_LOOK_SECONDS = 0.5
"""Other processes make room as well, and do not tell."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A finished layer that no image of this process is waiting for."""

    name: str
    size: int
    since: float


class Spool:
    """The layers that are kept, compressed, in `blobs`, and those on their way there.

    `limit` is in bytes, as is all else. `session` is the directory of this process' unfinished
    work, beside those of others. `give_up` deletes the layer of that name if that can be done now;
    `free_space` is what the disk still holds, as far as that can be told.
    """

    def __init__(
        self,
        blobs: Path,
        session: Path,
        limit: int,
        give_up: Callable[[str], bool],
        free_space: Callable[[], int | None],
    ) -> None:
        self._blobs = blobs
        self._session = session
        self._limit = limit
        self._give_up = give_up
        self._free_space = free_space
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._admitted: list[Mapping[str, int]] = []

    @contextmanager
    def room_for(
        self, layers: Mapping[str, int], keep_waiting: Callable[[], None]
    ) -> Iterator[None]:
        """Hold room for `layers` (sizes by name) of one image, until it is published or failed.

        `keep_waiting` is called now and then; what it raises ends the waiting.
        """
        if not layers:
            yield
            return
        self._wait(layers, keep_waiting)
        try:
            yield
        finally:
            with self._changed:
                self._admitted = [each for each in self._admitted if each is not layers]
                self._changed.notify_all()

    def _wait(self, layers: Mapping[str, int], keep_waiting: Callable[[], None]) -> None:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or not self._fits(layers):
                    self._changed.wait(_LOOK_SECONDS)
                    keep_waiting()
                self._admitted.append(layers)
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _fits(self, layers: Mapping[str, int]) -> bool:
        """Whether there is room, what nobody waits for having been given up as far as needed."""
        claimed = {name: size for each in (*self._admitted, layers) for name, size in each.items()}
        staged = self._staged()
        to_come = sum(size for name, size in layers.items() if name not in staged)
        others = sorted(
            (kept for name, kept in staged.items() if name not in claimed),
            key=lambda kept: kept.since,
            reverse=True,
        )
        beside, oldest_run = self._other_runs()
        while True:
            used = sum(claimed.values()) + sum(kept.size for kept in others) + beside
            free = self._free_space()
            if used <= self._limit and (free is None or to_come <= free):
                return True
            if not others or others[-1].since >= oldest_run or not self._give_up(others[-1].name):
                return not self._admitted
            others.pop()

    def _staged(self) -> dict[str, _Kept]:
        """All finished layers, by name."""
        found: dict[str, _Kept] = {}
        for path in self._blobs.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # published just now
            name = path.stem
            size = found[name].size if name in found else 0
            found[name] = _Kept(name, size + status.st_size, status.st_mtime)
        return found

    def _other_runs(self) -> tuple[int, float]:
        """How much other processes have on its way, and when the first of them began."""
        size, began = 0, float("inf")
        for session in self._session.parent.iterdir():
            if session == self._session or not session.is_dir():
                continue
            try:
                began = min(began, session.stat().st_ctime)
                size += sum(blob.stat().st_size for blob in session.glob("*/blob"))
            except FileNotFoundError:
                continue  # it ended just now
        return size, began
