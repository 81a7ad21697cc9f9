"""How a repository grows, by month: from its history, and from the times of its images. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from publisher.browse.statistics.holdings import Holdings
from publisher.lazy import dataclass, pattern
from publisher.tree.history import Record

_MONTH = pattern(r"[0-9]{4}-(?:0[1-9]|1[0-2])")
_MOST_MONTHS = 1200
_EVENTS = {"published": "published", "collected": "removed"}


@dataclass(frozen=True, slots=True)
class Period:
    """One month.

    Attributes:
        month: As "2026-11".
        published: How often an image was published, according to the history. An image whose tag
            moved is published again.
        removed: How many images were removed, according to the history.
        images: How many of the images of today had been published by the end of the month.
        stored: The bytes of the layers of these images, and of retired ones.
    """

    month: str
    published: int
    removed: int
    images: int
    stored: int


def growth(holdings: Holdings, history: Iterable[Record]) -> tuple[Period, ...]:
    """Return each month from the first to the last in which something happened.

    Sizes of removed images are not recorded. Images and bytes are therefore those of what exists
    today: what has been removed since is not in the figures of earlier months.
    """
    events: dict[str, Counter[str]] = {name: Counter() for name in _EVENTS.values()}
    for record in history:
        month = _MONTH.match(record.time)
        for change in record.changes if month else ():
            if month and change.what in _EVENTS:
                events[_EVENTS[change.what]][month[0]] += 1
    images: Counter[str] = Counter()
    first: dict[str, str] = {}
    for holder in holdings.holders:
        if holder.since is None:
            continue
        since = f"{holder.since.year:04}-{holder.since.month:02}"
        if holder.published:
            images[since] += 1
        for digest in holder.layers:
            first[digest] = min(first.get(digest, since), since)
    stored: Counter[str] = Counter()
    for digest, since in first.items():
        stored[since] += holdings.stored([digest])
    return _accumulated(events["published"], events["removed"], images, stored)


def _accumulated(
    published: Counter[str], removed: Counter[str], images: Counter[str], stored: Counter[str]
) -> tuple[Period, ...]:
    periods = []
    count = size = 0
    for month in _months({*published, *removed, *images, *stored}):
        count += images[month]
        size += stored[month]
        periods.append(Period(month, published[month], removed[month], count, size))
    return tuple(periods)


def _months(found: set[str]) -> list[str]:
    """Return all months from the first to the last of `found`, which may have gaps.

    The gaps are kept where a wrong clock would make thousands of months of them.
    """
    numbers = [int(month[:4]) * 12 + int(month[5:]) - 1 for month in found]
    if not numbers or max(numbers) - min(numbers) > _MOST_MONTHS:
        return sorted(found)
    return [f"{n // 12:04}-{n % 12 + 1:02}" for n in range(min(numbers), max(numbers) + 1)]
