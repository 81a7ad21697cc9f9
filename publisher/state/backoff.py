"""When an image that fails is tried again. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random

from publisher.times import later

FIRST = timedelta(minutes=5)
"""The time from the first failure to the second try."""

LONGEST = timedelta(days=1)
"""The longest time between two tries."""

LONGEST_OF_A_REGISTRY = timedelta(hours=1)
"""The same, where the failure is of a registry: it affects all images there, and usually ends."""

_FACTOR = 2
_JITTER = 0.25


def next_try(
    tries: int, now: datetime, random: Random, *, longest: timedelta = LONGEST
) -> datetime:
    """Return the moment of the next try after `tries` failures in a row, the last one at `now`.

    The time until then begins with FIRST and doubles with each failure, up to `longest`. A random
    part of it, at most a quarter, is subtracted: images that failed together are not tried together
    again.
    """
    # 2 ** 20 times FIRST is longer than any `longest`; more would not fit in a timedelta.
    step = min(FIRST * _FACTOR ** min(max(tries, 1) - 1, 20), longest)
    return later(now, step - step * (_JITTER * random.random()))


def is_waiting(next_try: datetime | None, now: datetime) -> bool:
    """Return whether the time until `next_try` has not passed.

    A moment that is further away than LONGEST was computed while the clock was wrong.
    """
    return next_try is not None and now < next_try <= later(now, LONGEST)
