"""What the threads of this process are doing."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any


def threads_in(*functions: Callable[..., Any]) -> int:
    """Return the number of threads that are executing all of `functions`, written in Python."""
    wanted = {function.__code__ for function in functions}
    return sum(
        wanted <= {called.f_code for called, _ in traceback.walk_stack(frame)}
        for frame in sys._current_frames().values()
    )
