"""Threads for calls of the database of jobs, apart from those that make pages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

from publisher.service.jobs.model import JobsUnavailable

_THREADS = 10
"""How many calls run at the same time: as many as there are connections to PostgreSQL."""

_MOST_WAITING = 200

_SECONDS = 15.0
"""How long a request waits. A statement ends earlier, unless the server has stopped to answer."""

_P = ParamSpec("_P")
_T = TypeVar("_T")
_calls: set[asyncio.Future[Any]] = set()
_limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, anyio.CapacityLimiter] = WeakKeyDictionary()


async def in_database(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Return the result of a call that waits for the database.

    If the database is slow, only these calls wait: pages that do not need it are still made.

    Raises:
        JobsUnavailable: Many calls wait already, or this one takes too long. It may then still
            have an effect later.
    """
    limiter = _limiter()
    if limiter.statistics().tasks_waiting >= _MOST_WAITING:
        raise JobsUnavailable(
            "cannot reach the database of jobs",
            why=f"{_MOST_WAITING} requests wait for it",
            hint="send the request again later",
        )
    begun = False

    def run() -> _T:
        nonlocal begun
        begun = True
        return call(*args, **kwargs)

    work = asyncio.ensure_future(anyio.to_thread.run_sync(run, limiter=limiter))
    _calls.add(work)  # it counts until its thread ends, also if the request has ended before
    work.add_done_callback(_forget)
    done, _ = await asyncio.wait({work}, timeout=_SECONDS)
    if done:
        return work.result()
    if not begun:
        work.cancel()
    raise JobsUnavailable(
        "cannot reach the database of jobs",
        why=f"it has not answered for {_SECONDS:.0f} seconds",
        hint="make sure that the database runs; then send the request again",
    )


def _forget(work: asyncio.Future[Any]) -> None:
    """Forget a call that has ended; its error is not logged if no request waits for it."""
    _calls.discard(work)
    if not work.cancelled():
        work.exception()


def _limiter() -> anyio.CapacityLimiter:
    """Return the limit of this event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _limiters:
        _limiters[loop] = anyio.CapacityLimiter(_THREADS)
    return _limiters[loop]
