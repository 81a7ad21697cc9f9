from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from publisher.state.backoff import FIRST, LONGEST, LONGEST_OF_A_REGISTRY, is_waiting, next_try

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
seeds = st.integers(0, 2**32)
bounds = st.sampled_from([LONGEST, LONGEST_OF_A_REGISTRY])


@given(st.integers(0, 10_000), seeds, bounds)
def test_a_step_has_bounds_and_at_most_a_quarter_of_it_is_jitter(
    tries: int, seed: int, longest: timedelta
) -> None:
    wait = next_try(tries, NOW, Random(seed), longest=longest) - NOW
    whole = min(FIRST * 2 ** min(max(tries - 1, 0), 12), longest)
    assert whole * 0.75 <= wait <= whole
    assert is_waiting(NOW + wait, NOW)


@given(st.integers(1, 10_000), seeds, bounds)
def test_steps_without_jitter_never_become_shorter(
    tries: int, seed: int, longest: timedelta
) -> None:
    class Without(Random):
        def random(self) -> float:
            return 0.0

    one, next_one = (next_try(n, NOW, Without(), longest=longest) for n in (tries, tries + 1))
    assert one <= next_one
    assert next_try(tries, NOW, Random(seed), longest=longest) <= one


@given(seeds, st.integers(1, 60))
def test_runs_try_an_image_at_most_once_in_each_step(seed: int, minutes: int) -> None:
    random, at, due = Random(seed), NOW, None
    tried: list[datetime] = []
    for _ in range(200):
        if not is_waiting(due, at):
            tried.append(at)
            due = next_try(len(tried), at, random)
        at += timedelta(minutes=minutes)
    for number, (one, other) in enumerate(itertools.pairwise(tried), 1):
        step = min(FIRST * 2 ** min(number - 1, 12), LONGEST)
        assert step * 0.75 <= other - one < step + timedelta(minutes=minutes)


def test_the_last_moment_of_the_calendar_is_no_error() -> None:
    late = datetime.max.replace(tzinfo=UTC, microsecond=0)
    assert next_try(1, late, Random(1)) == late
    assert not is_waiting(late, late)


def test_a_next_try_that_a_wrong_clock_recorded_does_not_put_an_image_off() -> None:
    assert not is_waiting(NOW + timedelta(days=400), NOW)
    assert not is_waiting(NOW, NOW)
    assert not is_waiting(None, NOW)
