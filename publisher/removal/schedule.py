"""Put images on the remove schedule by hand, and say what goes when.

The use cases behind `publisher remove` and `publisher schedule`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from publisher.oci.manifest import parse_published_manifest
from publisher.removal.books import DOUBTS, Books, write_schedule
from publisher.removal.names import Target, find_target, published_places
from publisher.repository import Repository, Transaction
from publisher.repository.published import NotPublished
from publisher.repository.reading import (
    current_manifest,
    load_pins,
    load_publication,
    load_schedule,
)
from publisher.times import later
from publisher.tree import layout
from publisher.tree.pins import ImagePinned, Pin, Pins
from publisher.tree.schedule import RemoveSchedule, ScheduledRemoval
from publisher.wishlist import DEFAULT_GRACE

WITHDRAWN = "withdrawn"
REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Planned:
    """A scheduled image: when it may go, and what that frees if all before it have gone.

    `pin` holds it for now. `problem` says why it cannot be told what goes; it stays then.
    """

    entry: ScheduledRemoval
    pin: Pin | None
    layers: int = 0
    size: int = 0
    problem: str = ""

    @property
    def held_until(self) -> datetime | None:
        """When it may go; None where a pin without an end holds it."""
        if self.pin is None:
            return self.entry.not_before
        if self.pin.until is None:
            return None
        day_after = later(datetime.combine(self.pin.until, time(), UTC), timedelta(days=1))
        return max(self.entry.not_before, day_after)


def list_schedule(repository: Repository, now: datetime) -> list[Planned]:
    """What is scheduled, in the order in which it goes; nothing is touched."""
    books = Books(repository)
    pins = books.pins
    entries = sorted(books.schedule.entries, key=lambda entry: (entry.not_before, entry.key))
    planned = []
    for entry in entries:
        pin = pins.find(*entry.key, now)
        if pin is not None:
            planned.append(Planned(entry, pin))
            continue
        try:
            released = books.release(entry)
            planned.append(Planned(entry, None, released.layers, released.size))
        except DOUBTS as error:
            planned.append(Planned(entry, None, problem=str(error)))
    return planned


def remove(
    repository: Repository,
    image: str,
    now: Callable[[], datetime],
    *,
    grace: timedelta | None = None,
    drop_link: bool = False,
) -> list[ScheduledRemoval]:
    """Schedule what is published as `image`, for all its platforms; the entries, new or not.

    One that is scheduled already keeps its time. `grace` replaces the wish's, `drop_link` takes
    the public link away at once. Raises NotPublished and ImagePinned.
    """
    with (
        repository.transaction(f"removal of {image}") as transaction,
        transaction.exclusive(),
    ):
        before = load_schedule(repository)
        pins = load_pins(repository)
        target = find_target(repository, before, image)
        moment = now()
        schedule, entries = before, []
        for name in _current_places(repository, target):
            entry = new_entry(repository, before, name, REMOVED, moment, grace)
            check_not_pinned(pins, entry, moment)
            schedule = schedule.with_entry(entry)
            found = schedule.find(*entry.key)
            assert found is not None
            entries.append(found)
            if found is entry:
                transaction.record(name, "scheduled", "removed by hand")
            if drop_link:
                take_link_away(repository, transaction, entry)
                schedule = schedule.with_link_dropped(*entry.key)
        write_schedule(repository, transaction, before, schedule)
        transaction.commit()
    return entries


def new_entry(
    repository: Repository,
    schedule: RemoveSchedule,
    name: str,
    reason: str,
    now: datetime,
    grace: timedelta | None = None,
) -> ScheduledRemoval:
    """The entry that schedules what is published as `name`; NotPublished if nothing is."""
    current = current_manifest(repository, name)
    if current is None:
        raise NotPublished(f"no image is published as {name}")
    digest, data = current
    publication = load_publication(repository, name)
    if grace is None:
        grace = timedelta(seconds=publication.grace_seconds) if publication else DEFAULT_GRACE
    # A clock that was set back must not shorten the grace period.
    began = schedule.latest(max(now, publication.published_at) if publication else now)
    return ScheduledRemoval(
        name=name,
        reference=publication.reference if publication else name,
        manifest_digest=digest,
        image_id=parse_published_manifest(data).image_id,
        manifest=json.loads(data),
        reason=reason,
        scheduled_at=began.replace(microsecond=0),
        not_before=later(began.replace(microsecond=0), grace),
    )


def check_not_pinned(pins: Pins, entry: ScheduledRemoval, now: datetime) -> None:
    """Raise ImagePinned if a pin holds the image."""
    pin = pins.find(*entry.key, now)
    if pin is not None:
        until = f" until {pin.until}" if pin.until else ""
        raise ImagePinned(
            f"cannot schedule {entry.name}",
            why=f"it is pinned{until}{f': {pin.reason}' if pin.reason else ''}",
            hint=f"`publisher unpin {entry.name}` first",
        )


def take_link_away(
    repository: Repository, transaction: Transaction, entry: ScheduledRemoval
) -> None:
    """Remove the public link now, while everything else stays for its grace period."""
    if repository.link_text(entry.name) == layout.link_target(entry.name, entry.image_id):
        transaction.remove(entry.name)


def give_link_back(repository: Repository, transaction: Transaction, name: str) -> None:
    """Create the public link again, if the image should have one and its flat image is there."""
    publication = load_publication(repository, name)
    if publication is None or "flat" not in publication.outputs:
        return
    target = layout.link_target(name, publication.image_id)
    flat = layout.flat_image(publication.image_id)
    if repository.exists(flat) and repository.link_text(name) != target:
        transaction.symlink(name, target)


def _current_places(repository: Repository, target: Target) -> list[str]:
    places = published_places(repository, target)
    if target.digest:
        manifests = {name: current_manifest(repository, name) for name in places}
        places = [n for n, found in manifests.items() if found and found[0] == target.digest]
    if not places:
        raise NotPublished(
            f"{target.name} is not published{f' as {target.digest}' if target.digest else ''}",
            hint="`publisher schedule` shows what is scheduled already",
        )
    return places
