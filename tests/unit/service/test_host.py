"""The threads of a host of the service."""

from __future__ import annotations

import logging
import threading

import pytest

from publisher.service.host import repeat
from publisher.service.jobs.model import JobsUnavailable


def test_no_error_ends_the_thread_that_submits_the_jobs_of_schedules(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stopping = threading.Event()
    errors: list[Exception] = [
        JobsUnavailable("cannot reach the database"),
        RecursionError("too deep"),
        KeyError("unexpected"),
    ]
    done: list[Exception] = []

    def work() -> None:
        if not errors:
            stopping.set()
            return
        done.append(errors.pop(0))
        raise done[-1]

    with caplog.at_level(logging.WARNING):
        repeat(work, 0, stopping)
    assert [type(each) for each in done] == [JobsUnavailable, RecursionError, KeyError]
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR", "ERROR"]
