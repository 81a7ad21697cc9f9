"""The wishes of the lists of the service, which webhooks compare pushed images with."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import field

from publisher.cli.sources import load_settings
from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.sources.wish_lists import is_remote, read_wish_list_document
from publisher.wishlist import WishListError, parse_wish_list
from publisher.wishlist.model import Wish

FRESH_SECONDS = 60.0
"""For how long a list from the network is not read again."""

PATIENCE_SECONDS = 5.0
"""How long a request waits for a list; after that, what was read before counts."""

_READERS = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Reading:
    """The reading of a list, which began when `stamp` was its stamp."""

    stamp: object
    wishes: Future[tuple[Wish, ...]]


@dataclass(slots=True)
class _Known:
    """What is known of the list at one source. `stamp` is that of the reading of `wishes`."""

    wishes: tuple[Wish, ...] | None = None
    stamp: object = None
    reading: _Reading | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class ServedLists:
    """Returns the wishes of a list: a file is read after each change, an address each minute.

    A list is read by one thread at a time, however many requests wait for it.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._clock = clock
        self._patience = patience
        self._known: dict[str, _Known] = {}
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="wish-list")

    def __call__(self, source: str) -> Sequence[Wish]:
        """Return the wishes at `source`, without those that have errors.

        Raises:
            WishListError: The list cannot be read, and was not read before.
        """
        known = self._known.setdefault(source, _Known())
        stamp = self._stamp(source)
        with known.lock:
            if known.wishes is not None and known.stamp == stamp:
                return known.wishes
            if known.reading is None:
                known.reading = _Reading(stamp, self._readers.submit(_read, source))
            reading = known.reading
        try:
            wishes = reading.wishes.result(self._patience)
        except TimeoutError:
            return self._before(known, source, "it was not read in time")
        except PublisherError as error:
            self._end(known, reading, None)
            return self._before(known, source, error.why)
        self._end(known, reading, wishes)
        return wishes

    def _end(self, known: _Known, reading: _Reading, wishes: tuple[Wish, ...] | None) -> None:
        with known.lock:
            if known.reading is reading:
                known.reading = None
                if wishes is not None:
                    known.wishes, known.stamp = wishes, reading.stamp

    def _before(self, known: _Known, source: str, why: str) -> tuple[Wish, ...]:
        if known.wishes is None:
            raise WishListError(f"cannot read wish list {source}", why=why)
        _log.warning("cannot read wish list %s again: %s", source, why)
        return known.wishes

    def _stamp(self, source: str) -> object:
        """Return a value that changes when the list is to be read again."""
        if is_remote(source):
            return int(self._clock() // FRESH_SECONDS)
        try:
            found = os.stat(source)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


def _read(source: str) -> tuple[Wish, ...]:
    document = read_wish_list_document(source, load_settings({}))
    return parse_wish_list(document, source, allow_local=True, repository_counts=False).wishes
