"""Durations are read as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from publisher.durations import LONGEST, duration_text, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("30d", timedelta(days=30)),
        ("36h", timedelta(hours=36)),
        ("1d12h", timedelta(days=1, hours=12)),
        ("2w", timedelta(days=14)),
        ("90m", timedelta(minutes=90)),
        ("0s", timedelta(0)),
        ("1w1d1h1m1s", timedelta(days=8, hours=1, minutes=1, seconds=1)),
    ],
)
def test_durations_are_numbers_with_units(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration
    assert parse_duration(duration_text(duration)) == duration


@pytest.mark.parametrize(
    "text", ["", "30", "d", "-1d", "1.5d", "30 days", "12h1d", "1d1d", "30D", "\u0661d", "1y"]
)
def test_what_is_not_a_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 30d, 36h or 1d12h"):
        parse_duration(text)


def test_a_duration_beyond_a_century_is_refused() -> None:
    assert parse_duration("36500d") == LONGEST
    for text in ("36501d", "999999999w"):
        with pytest.raises(ValueError, match="a hundred years"):
            parse_duration(text)
