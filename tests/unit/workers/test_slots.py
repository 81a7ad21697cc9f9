"""Which layers are unpacked at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from publisher.workers import slots as module
from publisher.workers.slots import Slots


class Interrupted(Exception):
    pass


def interrupt() -> None:
    raise Interrupted


def go_on() -> None:
    pass


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAKE_SECONDS", 0.001)
    monkeypatch.setattr(module, "_KEPT_SECONDS", 1000)
    monkeypatch.setattr(module, "_KEPT_BYTES", 5)


def is_refused(take: Callable[[], None]) -> bool:
    try:
        take()
    except Interrupted:
        return True
    return False


def test_a_slot_is_kept_for_a_larger_layer_until_that_has_one() -> None:
    slots = Slots(2)
    with ExitStack() as stack:
        large, *small = [stack.enter_context(slots.announced(size)) for size in (9, 2, 1)]

        def take(number: int) -> None:
            stack.enter_context(slots.taken(small[number], interrupt))

        take(0)
        assert is_refused(lambda: take(1))  # the other slot is for the largest
        with slots.taken(large, interrupt):
            assert is_refused(lambda: take(1))  # both are in use
        take(1)


def test_a_slot_is_not_kept_for_a_layer_that_fails_or_does_not_arrive_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slots = Slots(1)
    with slots.announced(1) as small:
        with slots.announced(9):
            assert is_refused(lambda: slots.taken(small, interrupt).__enter__())
        with slots.taken(small, interrupt):
            pass
    with slots.announced(9), slots.announced(1) as small:
        monkeypatch.setattr(module, "_KEPT_SECONDS", 0)
        with slots.taken(small, interrupt):
            pass


def test_no_slot_is_kept_for_a_layer_that_is_hardly_larger() -> None:
    slots = Slots(1)
    with slots.announced(4), slots.announced(1) as small, slots.taken(small, interrupt):
        pass


def test_a_layer_that_waits_for_a_slot_has_it_before_smaller_ones() -> None:
    slots = Slots(1)
    order = []
    with ExitStack() as stack:
        first, *others = [stack.enter_context(slots.announced(size)) for size in (9, 1, 2, 3)]

        def take(number: int) -> None:
            with slots.taken(others[number], go_on):
                order.append(number)

        threads = [threading.Thread(target=take, args=(number,)) for number in range(3)]
        with slots.taken(first, interrupt):
            for thread in threads:
                thread.start()
            while not all(each.is_waiting for each in others):
                pass
        for thread in threads:
            thread.join()
    assert order == [2, 1, 0]
