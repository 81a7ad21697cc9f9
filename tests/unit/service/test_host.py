"""The threads of a host of the service."""

from __future__ import annotations

import logging
import stat
import threading
from pathlib import Path

import pytest

from publisher.service.configuration import ServiceConfiguration
from publisher.service.host import Host, repeat
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


def test_other_users_cannot_read_the_state(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.mkdir()
    old.chmod(0o755)
    for state in (new, old):
        url = f"sqlite:///{state}/jobs.sqlite"
        Host(ServiceConfiguration("service.yaml", state, url, ()), {})
    assert [stat.S_IMODE(each.stat().st_mode) for each in (new, old)] == [0o700, 0o750]
