"""Put images on the remove schedule by hand, and list the schedule.

The use cases behind `publisher remove` and `publisher schedule`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta

from publisher.lazy import dataclass
from publisher.removal.names import Target, expand_pattern, find_target
from publisher.removal.reference_counts import UNCERTAIN_ERRORS, ReferenceCounts
from publisher.repository import Repository
from publisher.repository.published import NotPublished, published_places
from publisher.repository.records import RecordSet
from publisher.repository.scheduling import remove_scheduled_link, schedule_removal
from publisher.times import later
from publisher.tree.pins import Pin
from publisher.tree.schedule import Reason, ScheduledRemoval


@dataclass(frozen=True, slots=True)
class Planned:
    """A scheduled image, and what its removal frees after that of all images before it.

    `pin` is the pin that is in force for it. `problem` is why its records are uncertain, so that it
    is kept. `size` is in bytes.
    """

    entry: ScheduledRemoval
    pin: Pin | None
    layers: int = 0
    size: int = 0
    problem: str = ""

    @property
    def held_until(self) -> datetime | None:
        """When it may be removed; None if a pin without an end keeps it."""
        if self.pin is None:
            return self.entry.not_before
        if self.pin.until is None:
            return None
        day_after = later(datetime.combine(self.pin.until, time(), UTC), timedelta(days=1))
        return max(self.entry.not_before, day_after)


@dataclass(frozen=True, slots=True)
class Removed:
    """An image that was scheduled by hand, or was scheduled already.

    `wish_lists` are those that requested it. An ingest of one of them publishes it again.
    """

    entry: ScheduledRemoval
    wish_lists: tuple[str, ...] = ()


def list_schedule(repository: Repository, now: datetime) -> list[Planned]:
    """Return the scheduled images in the order of their removal; nothing is changed."""
    records = RecordSet(repository)
    counts = ReferenceCounts(records)
    pins = records.pins
    entries = sorted(records.schedule.all(), key=lambda entry: (entry.not_before, entry.key))
    planned = []
    for entry in entries:
        pin = pins.find(*entry.key, now)
        if pin is not None:
            planned.append(Planned(entry, pin))
            continue
        try:
            released = counts.release(entry)
            planned.append(Planned(entry, None, released.layers, released.size))
        except UNCERTAIN_ERRORS as error:
            planned.append(Planned(entry, None, problem=str(error)))
    return planned


def remove(
    repository: Repository,
    images: Sequence[str],
    now: Callable[[], datetime],
    *,
    grace: timedelta | None = None,
    drop_link: bool = False,
) -> list[Removed]:
    """Schedule the published `images` under all their names, in one transaction.

    Args:
        repository: The repository, opened for writing.
        images: Public names, globs that match public names, image references, or NAME@DIGEST.
        now: The clock.
        grace: Replaces the grace period that the images' wishes specify.
        drop_link: Remove the public links at once.

    Returns:
        The scheduled images; an image that was scheduled before keeps its time.

    Raises:
        NotPublished: One of the images is not published; nothing is scheduled then.
        ImagePinned: One of them is pinned; nothing is scheduled then.
    """
    with (
        repository.transaction(f"removal of {', '.join(images)}") as transaction,
        transaction.exclusive(),
    ):
        records = RecordSet(repository)
        moment = now()
        removed = []
        for name in _chosen_names(records, images):
            entry, is_new = schedule_removal(records, name, Reason.REMOVED, moment, grace=grace)
            if is_new:
                transaction.record(name, "scheduled", "removed by hand")
            if drop_link:
                entry = remove_scheduled_link(records, entry)
            publication = records.readable_publication(name)
            lists = publication.wish_lists if publication else ()
            removed.append(Removed(entry, tuple(sorted(lists))))
        records.write(transaction)
        transaction.commit()
    return removed


def _chosen_names(records: RecordSet, images: Sequence[str]) -> list[str]:
    """Return the published names that `images` name or match, each once."""
    names: dict[str, None] = {}
    for image in images:
        for text in expand_pattern(records, image):
            names |= dict.fromkeys(_current_places(records, find_target(records, text)))
    return list(names)


def _current_places(records: RecordSet, target: Target) -> list[str]:
    places = published_places(records.repository, target.name)
    if target.digest:
        places = [name for name in places if records.is_published(name, target.digest)]
    if not places:
        raise NotPublished(
            f"{target.name} is not published{f' as {target.digest}' if target.digest else ''}",
            name=target.name,
            hint="`publisher schedule` shows what is scheduled already",
        )
    return places
