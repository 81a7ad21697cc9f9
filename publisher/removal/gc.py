"""Collect images whose grace period is over: the use case behind `publisher gc`.

Images are removed in transactions of bounded size, the longest due first. All decisions are made
under the writer lock, so that an image that is requested again, and layers of other images, stay.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from publisher.lazy import dataclass
from publisher.removal.names import Target, find_target
from publisher.removal.reference_counts import UNCERTAIN_ERRORS, ReferenceCounts, Released
from publisher.repository import Repository
from publisher.repository.records import RecordSet
from publisher.times import later
from publisher.tree.pins import Pins
from publisher.tree.schedule import ScheduledRemoval

_TRANSACTION_RECORDS = 400
"""The number of changed records and trees from which a transaction ends."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that is due, but kept because its records are uncertain, with the reason."""

    entry: ScheduledRemoval
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Which scheduled images to collect.

    `grace` replaces the grace periods that the wishes specify; it counts from scheduling as well.
    With `at_once` all scheduled images count as due. `only` restricts the choice to one image,
    `limit` to a number of images.
    """

    grace: timedelta | None = None
    at_once: bool = False
    only: Target | None = None
    limit: int | None = None

    def due_at(self, entry: ScheduledRemoval) -> datetime:
        """Return the moment from which the entry may be collected."""
        return entry.not_before if self.grace is None else later(entry.scheduled_at, self.grace)

    def due(
        self, entries: Iterable[ScheduledRemoval], pins: Pins, now: datetime
    ) -> list[ScheduledRemoval]:
        """Return the entries that may be collected at `now`, the longest due first."""
        found = [
            entry
            for entry in entries
            if (self.at_once or self.due_at(entry) <= now)
            and (self.only is None or self.only.includes(*entry.key))
            and pins.find(*entry.key, now) is None
        ]
        return sorted(found, key=lambda entry: (self.due_at(entry), entry.key))[: self.limit]


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a collection, or of its dry run. `waiting` counts images that are not due."""

    released: tuple[Released, ...]
    kept: tuple[Kept, ...]
    waiting: int

    @property
    def size(self) -> int:
        """The number of bytes freed."""
        return sum(each.size for each in self.released)

    @property
    def layers(self) -> int:
        """The number of removed layers."""
        return sum(each.layers for each in self.released)

    @property
    def flat_images(self) -> int:
        """The number of removed flat images."""
        return sum(each.flat for each in self.released)


def choose(
    repository: Repository,
    *,
    grace: timedelta | None = None,
    at_once: bool = False,
    image: str | None = None,
    limit: int | None = None,
) -> Choice:
    """Return the choice that a command line describes; see `Choice` for the arguments.

    Args:
        image: A public name, an image reference, or NAME@DIGEST; None for all images.

    Raises:
        NotPublished: No such image is published or scheduled.
        InvalidReference: `image` is neither a name nor a reference.
    """
    only = None if image is None else find_target(RecordSet(repository), image)
    return Choice(grace, at_once, only, limit)


def collect(
    repository: Repository,
    choice: Choice,
    now: Callable[[], datetime],
    *,
    dry_run: bool = False,
    on_released: Callable[[Released], None] = lambda released: None,
) -> Report:
    """Collect what `choice` describes.

    Args:
        repository: The repository, opened for writing unless this is a dry run.
        choice: Which scheduled images to collect.
        now: The clock.
        dry_run: Change nothing, take no lock, and report what a run at the same moment would do.
        on_released: Called with each image once its transaction is committed.

    Raises:
        InvalidRecord: The schedule or the pins are damaged; nothing is collected then.
        RepositoryError: The repository cannot be used.
    """
    records = RecordSet(repository)
    due = choice.due(records.schedule.all(), records.pins, now())
    if dry_run:
        released, kept = _release(ReferenceCounts(records), due)
        waiting = len(records.schedule.all()) - len(kept)
        return Report(tuple(released), tuple(kept), waiting)
    all_released: list[Released] = []
    all_kept: list[Kept] = []
    pending = [entry.key for entry in due]
    limit = _TRANSACTION_RECORDS
    while pending:
        try:
            released, kept, pending = _collect_some(repository, choice, now, pending, limit)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or limit == 1:
                raise
            limit = 1  # a transaction of one image needs the least space, and frees some
            continue
        all_released += released
        all_kept += kept
        for each in released:
            on_released(each)
    waiting = len(RecordSet(repository).schedule.all()) - len(all_kept)
    return Report(tuple(all_released), tuple(all_kept), waiting)


def _collect_some(
    repository: Repository,
    choice: Choice,
    now: Callable[[], datetime],
    pending: Sequence[tuple[str, str]],
    limit: int,
) -> tuple[Sequence[Released], Sequence[Kept], list[tuple[str, str]]]:
    """Run one transaction; return removed and kept images, and the keys of the remaining ones."""
    with repository.transaction("gc") as transaction, transaction.exclusive():
        records = RecordSet(repository)
        counts = ReferenceCounts(records)
        # Each image changes at least one record.
        entries = (records.schedule.find(*key) for key in pending[:limit])
        batch = choice.due((e for e in entries if e is not None), records.pins, now())
        released, kept = _release(counts, batch, limit)
        for each in released:
            transaction.record(each.entry.name, "collected", each.entry.manifest_digest)
        if released:
            from publisher.runtimes.podman import store as podman_store

            podman_store.forget(repository, transaction, counts.names, counts.unused)
            records.write(transaction)
            transaction.commit()
    done = {each.entry.key for each in released} | {each.entry.key for each in kept}
    left = [entry.key for entry in batch if entry.key not in done]
    return released, kept, [*left, *pending[limit:]]


def _release(
    counts: ReferenceCounts, entries: Iterable[ScheduledRemoval], limit: int | None = None
) -> tuple[Sequence[Released], Sequence[Kept]]:
    """Release the entries in order, until `limit` records and trees change."""
    released, kept = [], []
    for entry in entries:
        if limit is not None and counts.records.changes >= limit:
            break
        try:
            released.append(counts.release(entry))
        except UNCERTAIN_ERRORS as error:
            kept.append(Kept(entry, str(error)))
    return released, kept
