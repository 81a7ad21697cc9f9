"""Moments: the present one, and all of them as the program writes them: UTC, to the second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def utc_now() -> datetime:
    """Return the present moment, in UTC."""
    return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """Return `moment` in UTC, to the second: "2026-11-20T08:15:00Z"."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """Return the moment that `format_time` wrote; raise ValueError for any other text."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or format_time(moment) != text:
        raise ValueError(f"not a moment such as 2026-11-20T08:15:00Z: {text!r}")
    return moment


def later(moment: datetime, by: timedelta) -> datetime:
    """Return `moment + by`, or the last moment that can be written if the sum is later."""
    try:
        return moment + by
    except OverflowError:
        return datetime.max.replace(microsecond=0, tzinfo=UTC)
