"""Calls of the database that requests wait for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from publisher.service.jobs.model import JobsUnavailable
from publisher.service.web import threads
from publisher.service.web.threads import in_database


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be put forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def test_a_request_does_not_wait_for_a_database_that_has_stopped_to_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "_SECONDS", 60.0)
    resumes = threading.Event()
    begun: list[int] = []
    loop = Loop()

    def call(number: int) -> int:
        begun.append(number)
        resumes.wait(60)
        return number

    async def requests() -> None:
        some = [asyncio.ensure_future(in_database(call, number)) for number in range(25)]
        while len(begun) < 10:
            await asyncio.sleep(0.001)
        loop.ahead = 100.0
        found = await asyncio.gather(*some, return_exceptions=True)
        assert {type(each) for each in found} == {JobsUnavailable}
        resumes.set()
        assert await in_database(call, 25) == 25

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(requests())
    # Ten threads, which were not interrupted; what had not begun has not been done later.
    assert len(begun) == 11 and begun[-1] == 25


def test_errors_of_calls_are_those_of_their_requests() -> None:
    def call() -> None:
        raise KeyError("missing")

    async def request() -> None:
        with pytest.raises(KeyError):
            await in_database(call)

    asyncio.run(request())
