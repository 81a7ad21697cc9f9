"""Which cases of a slow test run: all under CI, else a sample whose seed is printed.

PUBLISHER_SAMPLE         the part of the cases: "all", or a number from 0 to 1
PUBLISHER_RANDOM_SEED    repeats a sample
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")

COMPLETE = bool(os.environ.get("CI"))
"""Whether nothing may be left out."""

SEED = int(os.environ.get("PUBLISHER_RANDOM_SEED") or time.time_ns())
"""Set by tests/conftest.py for all processes of a run, which prints it."""


def share(default: float, complete: float = 1.0) -> float:
    """Return the part of the cases to run: `default`, or `complete` under CI."""
    asked = os.environ.get("PUBLISHER_SAMPLE", "")
    if asked:
        return 1.0 if asked == "all" else float(asked)
    return complete if COMPLETE else default


def sample(cases: Sequence[_T], part: float) -> list[_T]:
    """Return about this part of `cases`, in their order, and at least one; the same for a seed."""
    count = max(1, round(len(cases) * part))
    if count >= len(cases):
        return list(cases)
    chosen = random.Random(SEED).sample(range(len(cases)), count)
    return [cases[number] for number in sorted(chosen)]
