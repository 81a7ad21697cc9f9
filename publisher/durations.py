"""Parses durations such as `36h`, `30d`, `1d12h`."""

from __future__ import annotations

from datetime import timedelta

from publisher.lazy import pattern

_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}
_DURATION = pattern(r"(?=[0-9])" + "".join(rf"(?:([0-9]{{1,9}}){unit})?" for unit in _UNITS))

DEFAULT_WAIT = 600.0
"""Seconds to wait for another writer. Commits are short; only a collection may take longer."""

LONGEST = timedelta(days=36500)
"""A hundred years; a longer duration is probably a mistake."""


def parse_duration(text: str) -> timedelta:
    """Parse weeks, days, hours, minutes and seconds, the largest first. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a duration; write a number and a unit (w, d, h, m or s), such as "
            "30d, 36h or 1d12h"
        )
    seconds = sum(
        int(number) * int(unit.total_seconds())
        for number, unit in zip(match.groups("0"), _UNITS.values(), strict=True)
    )
    if seconds > LONGEST.total_seconds():
        raise ValueError(f"{text!r} is longer than a hundred years")
    return timedelta(seconds=seconds)


def duration_text(duration: timedelta) -> str:
    """Return a duration as `parse_duration` reads it, such as "30d"; without fractions of seconds.

    Days are not summed up to weeks.
    """
    left = int(duration.total_seconds())
    text = ""
    for unit, length in _UNITS.items():
        if unit != "w":
            count, left = divmod(left, int(length.total_seconds()))
            text += f"{count}{unit}" if count else ""
    return text or "0s"
