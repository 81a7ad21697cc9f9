"""Lets the images of a run be committed together, whatever the order of its threads is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from publisher.ingest.group import Commits, _Waiting

GATHER = "gather"
"""In the words of a command of `tests.transactions`: before a number, and the command itself."""


def gather_commits(
    number: int, before: Callable[[], object] = lambda: None, at_most: float | None = None
) -> None:
    """In this process, from now on: no commit begins before `number` images wait for it.

    `before` is called when they do. After `at_most` seconds commits begin anyway: where operations
    fail on purpose, an image may never wait for its commit.
    """
    original = Commits._next_group
    complete = False

    def next_group(self: Commits, own: _Waiting) -> list[_Waiting] | None:
        nonlocal complete
        with self._changed:
            if not complete and len(self._queue) >= number:
                before()
                complete = True
            self._changed.notify_all()
            is_complete = self._changed.wait_for(lambda: complete, at_most or 60)
            assert is_complete or at_most, "too few images became ready"
            complete = True
        return original(self, own)

    Commits._next_group = next_group  # type: ignore[method-assign]


@contextmanager
def gathered_commits(number: int, before: Callable[[], object] = lambda: None) -> Iterator[None]:
    """The same for the time of a block."""
    original = Commits._next_group
    gather_commits(number, before)
    try:
        yield
    finally:
        Commits._next_group = original  # type: ignore[method-assign]
