"""Threads for calls of the database of jobs, apart from those that make pages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

from publisher.service.jobs.model import JobsUnavailable

_THREADS = 10
"""How many calls run at the same time: as many as there are connections to PostgreSQL."""

_MOST_WAITING = 200

_P = ParamSpec("_P")
_T = TypeVar("_T")
_limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, anyio.CapacityLimiter] = WeakKeyDictionary()


async def in_database(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Return the result of a call that waits for the database.

    If the database is slow, only these calls wait: pages that do not need it are still made.

    Raises:
        JobsUnavailable: Many calls wait already.
    """
    limiter = _limiter()
    if limiter.statistics().tasks_waiting >= _MOST_WAITING:
        raise JobsUnavailable(
            "cannot reach the database of jobs",
            why=f"{_MOST_WAITING} requests wait for it",
            hint="send the request again later",
        )
    return await anyio.to_thread.run_sync(lambda: call(*args, **kwargs), limiter=limiter)


def _limiter() -> anyio.CapacityLimiter:
    """Return the limit of this event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _limiters:
        _limiters[loop] = anyio.CapacityLimiter(_THREADS)
    return _limiters[loop]
