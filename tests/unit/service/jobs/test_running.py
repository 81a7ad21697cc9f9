"""A host runs a job: how its command ends decides about its state, its log and that of the host."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS

from publisher.service.configuration import RepositoryConfiguration, ServiceConfiguration
from publisher.service.jobs import running as running_module
from publisher.service.jobs.database import connect, create_tables
from publisher.service.jobs.model import Job, JobKind, JobRequest, JobState
from publisher.service.jobs.running import JobRunner
from publisher.service.jobs.store import StoredJobs
from publisher.service.jobs.worker import WorkerStore

SECONDS = 60.0
REQUEST = JobRequest(JobKind.GC, "images")


@dataclass(frozen=True, slots=True)
class Host:
    jobs: StoredJobs
    runner: JobRunner

    @contextmanager
    def running(self, request: JobRequest = REQUEST) -> Iterator[Job]:
        """Run a new job until it has ended, which it does by itself in the block."""
        job = self.jobs.submit(request).job
        thread = threading.Thread(target=self.runner.run, args=(job.id,), daemon=True)
        thread.start()
        yield job
        thread.join(SECONDS)
        assert not thread.is_alive()

    def run(self, request: JobRequest = REQUEST) -> Job:
        """Run a new job to its end."""
        with self.running(request) as job:
            pass
        return self.jobs.get(job.id)

    def events(self, job: Job) -> list[tuple[str, str, str]]:
        """The events of a job: name, level and message."""
        found: list[dict[str, Any]] = [dict(each.value) for each in self.jobs.events(job.id)]
        return [(each["event"], each["level"], each["message"]) for each in found]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose commands are shell scripts: the first argument of a job."""

    def program(words: Sequence[str]) -> list[str]:
        [script] = [each for each in words if each.startswith("--script=")]
        return ["/bin/sh", "-c", script.removeprefix("--script=")]

    monkeypatch.setattr(running_module, "publisher_program", program)
    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    engine = connect(url)
    create_tables(engine)
    DBOS.migrate(url)
    repository = RepositoryConfiguration("images", f"dir:{tmp_path}/images")
    configuration = ServiceConfiguration("service.yaml", tmp_path, url, (repository,))
    jobs = StoredJobs(engine, 100)
    environment = {"PATH": os.environ["PATH"]}
    return Host(jobs, JobRunner(configuration, environment, jobs, WorkerStore(engine, "host")))


def script(text: str, kind: JobKind = JobKind.GC, repository: str = "images") -> JobRequest:
    return JobRequest(kind, repository, arguments=(f"--script={text}",))


def test_a_job_that_waits_for_its_next_try_is_cancelled_at_once(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_module, "_OTHER_RUN_SECONDS", (3600.0, 3600.0))
    with host.running(script("echo tried; exit 5")) as job:
        until = time.monotonic() + SECONDS
        while not host.jobs.last_event(job.id):
            assert time.monotonic() < until
            time.sleep(0.05)
        host.jobs.cancel(job.id, "user")
    found = host.jobs.get(job.id)
    assert (found.state, found.error) == (JobState.CANCELLED, "cancelled by user")
    assert host.events(job) == [("output", "info", "tried")]


def test_a_job_whose_time_is_over_while_it_waits_for_its_next_try_has_failed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_module, "_OTHER_RUN_SECONDS", (3600.0, 3600.0))
    limits = replace(host.runner.configuration.limits, job_time=timedelta(seconds=1))
    host.runner.configuration = replace(host.runner.configuration, limits=limits)
    found = host.run(script("exit 5"))
    assert found.state is JobState.FAILED and "as limits.job-time states" in found.error


def test_a_command_is_tried_again_while_another_run_is_at_work(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_module, "_OTHER_RUN_SECONDS", (0.0, 0.0))
    found = host.run(script("test -e tried && exit 0; touch tried; exit 5"))
    assert (found.state, found.exit_code, found.attempt) == (JobState.SUCCEEDED, 0, 1)


def test_a_failure_is_an_error_in_the_log_of_the_job_and_a_warning_in_that_of_the_host(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert host.run(script("exit 0")).state is JobState.SUCCEEDED
        assert not caplog.records
        found = host.run(script("echo cause >&2; exit 3"))
        text = "the command ended with exit code 3"
        assert (found.state, found.exit_code, found.error) == (JobState.FAILED, 3, "")
        assert host.events(found) == [("output", "info", "cause"), ("job-failed", "error", text)]
        killed = host.run(script("kill -KILL $$"))
        [(name, level, message)] = host.events(killed)
        assert (name, level, message) == ("job-failed", "error", killed.error) and "9" in message
        absent = host.run(script("exit 0", repository="absent"))
        [(name, level, message)] = host.events(absent)
        assert (name, level, message) == ("job-failed", "error", absent.error)
    lines = [(each.levelname, each.getMessage()) for each in caplog.records]
    assert [level for level, _ in lines] == ["WARNING"] * 3
    assert lines[0][1] == f"job {found.id} failed: gc of images: {text}"
    assert f"job {absent.id} failed: gc of absent: cannot run gc" in lines[2][1]
