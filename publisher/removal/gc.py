"""Collect what is due: the use case behind `publisher gc`.

Images go in transactions of bounded size, the longest due first. Whatever was found out before is
found out again under the lock, so that an image that was wished again, or that came to use a layer
of a dying one, wins.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from publisher.removal.books import DOUBTS, Books, Released
from publisher.removal.names import Target, find_target
from publisher.repository import Repository
from publisher.repository.reading import load_pins, load_schedule
from publisher.times import later
from publisher.tree.pins import Pins
from publisher.tree.schedule import RemoveSchedule, ScheduledRemoval

_TRANSACTION_RECORDS = 400
"""From this many records and trees on, a transaction takes no further image."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that is due, and stays because of a doubt: `why` says which."""

    entry: ScheduledRemoval
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Which scheduled images to collect.

    `grace` replaces the grace periods that the wishes asked for; it counts from scheduling as well.
    With `at_once` everything that is scheduled counts as due. `only` restricts it to one image,
    `limit` to so many images.
    """

    grace: timedelta | None = None
    at_once: bool = False
    only: Target | None = None
    limit: int | None = None

    def due_at(self, entry: ScheduledRemoval) -> datetime:
        """The moment from which the entry may be collected."""
        return entry.not_before if self.grace is None else later(entry.scheduled_at, self.grace)

    def due(self, schedule: RemoveSchedule, pins: Pins, now: datetime) -> list[ScheduledRemoval]:
        """What may go at `now`, the longest due first."""
        found = [
            entry
            for entry in schedule.entries
            if (self.at_once or self.due_at(entry) <= now)
            and (self.only is None or self.only.includes(*entry.key))
            and pins.find(*entry.key, now) is None
        ]
        return sorted(found, key=lambda entry: (self.due_at(entry), entry.key))[: self.limit]


@dataclass(frozen=True, slots=True)
class Report:
    """What a collection did, or would do. `waiting` images are scheduled and stay for now."""

    released: tuple[Released, ...]
    kept: tuple[Kept, ...]
    waiting: int

    @property
    def size(self) -> int:
        """Bytes freed."""
        return sum(each.size for each in self.released)

    @property
    def layers(self) -> int:
        """How many layers went."""
        return sum(each.layers for each in self.released)

    @property
    def flat_images(self) -> int:
        """How many flat images went."""
        return sum(each.flat for each in self.released)


def choose(
    repository: Repository,
    *,
    grace: timedelta | None = None,
    at_once: bool = False,
    image: str | None = None,
    limit: int | None = None,
) -> Choice:
    """The choice that a command line describes; `image` is a name, a reference or NAME@DIGEST."""
    only = None if image is None else find_target(repository, load_schedule(repository), image)
    return Choice(grace, at_once, only, limit)


def collect(
    repository: Repository,
    choice: Choice,
    now: Callable[[], datetime],
    *,
    dry_run: bool = False,
    on_released: Callable[[Released], None] = lambda released: None,
) -> Report:
    """Collect what `choice` says; `on_released` is told of each image once it is gone.

    A dry run changes nothing, takes no lock, and reports what a run at the same moment would do.
    Raises InvalidRecord when schedule or pins cannot be read: then nothing is collected.
    """
    due = choice.due(load_schedule(repository), load_pins(repository), now())
    if dry_run:
        books = Books(repository)
        released, kept = _release(books, due)
        return Report(tuple(released), tuple(kept), len(books.schedule.entries) - len(kept))
    all_released: list[Released] = []
    all_kept: list[Kept] = []
    pending = [entry.key for entry in due]
    records = _TRANSACTION_RECORDS
    while pending:
        try:
            released, kept, pending = _collect_some(repository, choice, now, pending, records)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or records == 1:
                raise
            records = 1  # image by image: that needs the least room, and makes some
            continue
        all_released += released
        all_kept += kept
        for each in released:
            on_released(each)
    waiting = len(load_schedule(repository).entries) - len(all_kept)
    return Report(tuple(all_released), tuple(all_kept), waiting)


def _collect_some(
    repository: Repository,
    choice: Choice,
    now: Callable[[], datetime],
    pending: Sequence[tuple[str, str]],
    records: int,
) -> tuple[Sequence[Released], Sequence[Kept], list[tuple[str, str]]]:
    """One transaction: what went, what is kept, and what is left to be looked at."""
    with repository.transaction("gc") as transaction, transaction.exclusive():
        books = Books(repository)
        still_due = choice.due(books.schedule, books.pins, now())
        by_key = {entry.key: entry for entry in still_due}
        batch = [by_key[key] for key in pending if key in by_key]
        released, kept = _release(books, batch, records)
        for each in released:
            transaction.record(each.entry.name, "collected", each.entry.manifest_digest)
        if released:
            books.write(transaction)
            transaction.commit()
    done = {each.entry.key for each in released} | {each.entry.key for each in kept}
    return released, kept, [entry.key for entry in batch if entry.key not in done]


def _release(
    books: Books, entries: Iterable[ScheduledRemoval], records: int | None = None
) -> tuple[Sequence[Released], Sequence[Kept]]:
    """Release one after the other, until `records` are concerned; doubt keeps."""
    released, kept = [], []
    for entry in entries:
        if records is not None and books.size >= records:
            break
        try:
            released.append(books.release(entry))
        except DOUBTS as error:
            kept.append(Kept(entry, str(error)))
    return released, kept
