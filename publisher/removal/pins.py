"""Pin images: the use cases behind `publisher pin` and `publisher unpin`.

A pin concerns one manifest under one name. While it is in force, the image is neither updated nor
scheduled nor collected. A retired image can be pinned as well: it stays on the schedule, and is not
collected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime

from publisher.errors import PublisherError
from publisher.removal.names import Target, find_target
from publisher.repository import Repository
from publisher.repository.published import published_places
from publisher.repository.reading import load_pins
from publisher.repository.records import RecordSet
from publisher.repository.scheduling import restore_link
from publisher.tree.pins import Pin


class NotPinned(PublisherError):
    """The image `name` is not pinned, or cannot be, since only earlier images of its tag exist."""

    def __init__(self, what: str, *, name: str, why: str, hint: str) -> None:
        super().__init__(what, why=why, hint=hint)
        self.name = name


class InvalidPin(PublisherError):
    """A pin that would never be in force: the day `until` is over. `image` is the user's text."""

    def __init__(self, *, image: str, until: date) -> None:
        super().__init__(f"cannot pin {image} until {until}", why="that day is over")
        self.image = image
        self.until = until


def list_pins(repository: Repository) -> Sequence[Pin]:
    """Return all pins in the order of pinning, including expired ones."""
    return load_pins(repository).pins


def pin(
    repository: Repository,
    image: str,
    now: Callable[[], datetime],
    *,
    until: date | None = None,
    reason: str = "",
) -> list[Pin]:
    """Pin `image` under all its names.

    The published image is pinned, and taken off the schedule if it was on it. NAME@DIGEST pins that
    manifest, which may be retired.

    Args:
        repository: The repository, opened for writing.
        image: A public name, an image reference, or NAME@DIGEST.
        now: The clock.
        until: The last day of the pin (UTC); None for a pin without an end.
        reason: The reason, for listings and messages.

    Raises:
        NotPublished: No such image is published or scheduled.
        NotPinned: Only retired images of the name exist.
        InvalidPin: `until` is in the past.
    """
    with repository.transaction(f"pin of {image}") as transaction, transaction.exclusive():
        moment = now().replace(microsecond=0)
        if until is not None and until < moment.date():
            raise InvalidPin(image=image, until=until)
        records = RecordSet(repository)
        pins = records.pins
        target = find_target(records, image)
        current = _current(records, target)
        keys = set(current)
        if target.digest:
            keys |= {e.key for e in records.schedule.all() if target.includes(*e.key)}
        if not keys:
            raise NotPinned(
                f"cannot pin {target.name}",
                name=target.name,
                why="only earlier images of its tag exist, which are scheduled for removal",
                hint="name the manifest, as `publisher schedule` prints it: NAME@DIGEST",
            )
        new = [Pin(name, digest, moment, until, reason) for name, digest in sorted(keys)]
        for each in new:
            pins = pins.with_pin(each)
            transaction.record(each.name, "pinned", reason)
        for name, digest in sorted(current):
            records.schedule.remove(name, digest)
            restore_link(records, name)
        records.set_pins(pins)
        records.write(transaction)
        transaction.commit()
    return new


def unpin(repository: Repository, image: str, now: Callable[[], datetime]) -> list[Pin]:
    """Remove the pins of `image`, and return them.

    The grace period of a scheduled image begins again.

    Raises:
        NotPinned: The image has no pins.
        NotPublished: No such image is pinned, published or scheduled.
    """
    with repository.transaction(f"unpin of {image}") as transaction, transaction.exclusive():
        records = RecordSet(repository)
        pins = records.pins
        target = Target(image)
        if not any(target.includes(p.name, p.manifest_digest) for p in pins.pins):
            target = find_target(records, image)
        gone = [p for p in pins.pins if target.includes(p.name, p.manifest_digest)]
        if not gone:
            raise NotPinned(
                f"cannot unpin {target.name}",
                name=target.name,
                why="it is not pinned",
                hint="publisher pin",
            )
        for each in gone:
            pins = pins.without(each.name, each.manifest_digest)
            transaction.record(each.name, "unpinned")
        records.set_pins(pins)
        _renew_grace(records, [(p.name, p.manifest_digest) for p in gone], now())
        records.write(transaction)
        transaction.commit()
    return gone


def _current(records: RecordSet, target: Target) -> set[tuple[str, str]]:
    """Return (name, manifest digest) of the images that are published as `target`."""
    found = set()
    for name in published_places(records.repository, target.name):
        current = records.manifest(name)
        if current is not None and target.digest in ("", current.digest):
            found.add((name, current.digest))
    return found


def _renew_grace(records: RecordSet, keys: Iterable[tuple[str, str]], now: datetime) -> None:
    """Let the grace periods of those of `keys` that are scheduled begin again at `now`."""
    began = records.schedule.latest(now).replace(microsecond=0)
    for key in keys:
        entry = records.schedule.find(*key)
        if entry is not None:
            records.schedule.put(entry.with_fresh_grace(began))
