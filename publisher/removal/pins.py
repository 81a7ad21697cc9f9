"""Images that stay as they are: the use cases behind `publisher pin` and `publisher unpin`.

A pin is about one manifest under one name. While it holds, the tag does not move away from that
manifest, and the image is neither scheduled nor collected. What the tag had moved away from before
can be pinned as well: it then stays on the schedule, and the schedule waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime

from publisher.errors import PublisherError
from publisher.removal.books import write_schedule
from publisher.removal.names import Target, find_target, published_places
from publisher.removal.schedule import give_link_back
from publisher.repository import Repository
from publisher.repository.reading import current_manifest, load_pins, load_schedule
from publisher.times import later
from publisher.tree import layout
from publisher.tree.pins import Pin
from publisher.tree.schedule import RemoveSchedule


class NotPinned(PublisherError):
    """The image is not pinned."""


class InvalidPin(PublisherError):
    """A pin that would never hold."""


def list_pins(repository: Repository) -> Sequence[Pin]:
    """Every pin, in the order of pinning, also those whose time is over."""
    return load_pins(repository).pins


def pin(
    repository: Repository,
    image: str,
    now: Callable[[], datetime],
    *,
    until: date | None = None,
    reason: str = "",
) -> list[Pin]:
    """Pin `image` at all its places, up to and including the day `until` (UTC).

    What is published now is pinned, and leaves the schedule if it was on it; NAME@DIGEST pins that
    manifest, which may be one that the tag has moved away from. Raises NotPublished, InvalidPin.
    """
    with repository.transaction(f"pin of {image}") as transaction, transaction.exclusive():
        moment = now().replace(microsecond=0)
        if until is not None and until < moment.date():
            raise InvalidPin(f"cannot pin {image} until {until}", why="that day is over")
        before = schedule = load_schedule(repository)
        pins = load_pins(repository)
        target = find_target(repository, schedule, image)
        current = _current(repository, target)
        keys = current
        if target.digest:
            keys = keys | {e.key for e in schedule.entries if target.includes(*e.key)}
        if not keys:
            raise NotPinned(
                f"cannot pin {target.name}",
                why="only what its tag named before is there, and scheduled",
                hint="`publisher schedule` shows it; say which: NAME@DIGEST",
            )
        new = [Pin(name, digest, moment, until, reason) for name, digest in sorted(keys)]
        for each in new:
            pins = pins.with_pin(each)
            transaction.record(each.name, "pinned", reason)
        for name, digest in sorted(current):
            schedule = schedule.without(name, digest)
            give_link_back(repository, transaction, name)
        transaction.replace(layout.PINS, pins.to_bytes())
        write_schedule(repository, transaction, before, schedule)
        transaction.commit()
    return new


def unpin(repository: Repository, image: str, now: Callable[[], datetime]) -> list[Pin]:
    """Take the pins of `image` away; NotPinned if there are none.

    What is on the schedule gets its whole grace period again, counted from now.
    """
    with repository.transaction(f"unpin of {image}") as transaction, transaction.exclusive():
        before = schedule = load_schedule(repository)
        pins = load_pins(repository)
        target = Target(image)
        if not any(target.includes(p.name, p.manifest_digest) for p in pins.pins):
            target = find_target(repository, schedule, image)
        gone = [p for p in pins.pins if target.includes(p.name, p.manifest_digest)]
        if not gone:
            raise NotPinned(
                f"cannot unpin {target.name}",
                why="it is not pinned",
                hint="`publisher pin` without an image lists the pins",
            )
        began = schedule.latest(now()).replace(microsecond=0)
        for each in gone:
            pins = pins.without(each.name, each.manifest_digest)
            schedule = _with_fresh_grace(schedule, each, began)
            transaction.record(each.name, "unpinned")
        transaction.replace(layout.PINS, pins.to_bytes())
        write_schedule(repository, transaction, before, schedule)
        transaction.commit()
    return gone


def _current(repository: Repository, target: Target) -> set[tuple[str, str]]:
    """(name, manifest digest) of what is published as `target`."""
    found = set()
    for name in published_places(repository, target):
        current = current_manifest(repository, name)
        if current is not None and target.digest in ("", current[0]):
            found.add((name, current[0]))
    return found


def _with_fresh_grace(schedule: RemoveSchedule, pin: Pin, began: datetime) -> RemoveSchedule:
    entry = schedule.find(pin.name, pin.manifest_digest)
    if entry is None:
        return schedule
    grace = entry.not_before - entry.scheduled_at
    fresh = replace(entry, scheduled_at=began, not_before=later(began, grace))
    return schedule.without(*entry.key).with_entry(fresh)
