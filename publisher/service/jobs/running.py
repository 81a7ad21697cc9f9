"""A host runs a job: from the queue to its end, whatever happens to the database meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TypeVar

from publisher.errors import failure_text, presentable
from publisher.lazy import dataclass
from publisher.service.configuration import ServiceConfiguration
from publisher.service.jobs.child import Child, publisher_program
from publisher.service.jobs.command import CannotRun, job_arguments, job_environment
from publisher.service.jobs.credentials import UnsafeCredentials, project_options, quota_options
from publisher.service.jobs.model import JobKind, JobRequest, Jobs, JobsUnavailable, NoSuchJob
from publisher.service.jobs.output import Output, made_event
from publisher.service.jobs.worker import Attempt, WorkerStore

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_RETRY_SECONDS = 2.0
_WRITE_SECONDS = 0.5
_WITH_QUOTA = (JobKind.INGEST_LIST, JobKind.INGEST_IMAGE, JobKind.PLAN)
_OTHER_RUN = 5
"""The exit code of `publisher ingest` if another run is at work on the same list."""
_OTHER_RUN_SECONDS = (2.0, 60.0)
_WAIT_STEP = 0.2
"""Seconds after which a job that waits for its next try looks whether it is to end."""


def job_words(configuration: ServiceConfiguration, request: JobRequest) -> list[str]:
    """Return the arguments of `publisher` for a job, with the files of its project.

    Raises:
        CannotRun: The configuration does not have what the job names.
        UnsafeCredentials: The credentials of the project cannot be used.
        OSError: A file of the project cannot be read.
    """
    repositories = configuration.repositories
    if not request.project:
        options = []
        if request.kind is JobKind.RECONCILE:
            options = [f"--config={configuration.name}", f"--digest={configuration.digest}"]
        return job_arguments(repositories, request, options)
    job_arguments(repositories, request)  # raises CannotRun before files are read
    project = configuration.project(request.project)
    if project is None:
        raise CannotRun(
            f"cannot run {request.kind}",
            why=f"the configuration has no project {presentable(request.project)}",
            hint="add the project to the configuration of the service",
        )
    options = project_options(project)
    repository = configuration.repository(request.repository)
    if repository is not None and request.kind in _WITH_QUOTA:
        options += quota_options(project, repository)
    return job_arguments(repositories, request, options)


def _work(request: JobRequest) -> str:
    """Return what a job does, for the log of the service."""
    subject = f" {presentable(request.subject)}" if request.subject else ""
    return f"{request.kind}{subject} of {request.repository}"


class _Stopping(Exception):
    """The host stops while it waits for the database: the job runs elsewhere."""


@dataclass(slots=True)
class JobRunner:
    """Runs jobs on this host. `configuration` may be replaced at any time."""

    configuration: ServiceConfiguration
    environment: Mapping[str, str]
    jobs: Jobs
    store: WorkerStore
    stopping: threading.Event = field(default_factory=threading.Event)
    active: set[str] = field(default_factory=set)

    def run(self, job_id: str) -> None:
        """Run a job to its end; without an end if the host stops: the job then runs elsewhere."""
        self.active.add(job_id)
        attempt: Attempt | None = None
        try:
            attempt = self._until_available(lambda: self.store.begin(job_id))
            if attempt is None:
                return
            request = self._until_available(lambda: self.jobs.get(job_id)).request
            self._run(attempt, request)
        except (NoSuchJob, _Stopping):
            return
        except Exception as error:  # noqa: BLE001 - otherwise the job would seem to run for ever
            text = failure_text(error, f"job {job_id}")
            if attempt is not None:
                self._fail(attempt, text)
        finally:
            self.active.discard(job_id)
            if self.stopping.is_set():
                threading.Event().wait()  # DBOS would record that the job is done

    def _run(self, attempt: Attempt, request: JobRequest) -> None:
        configuration = self.configuration
        last = self._until_available(lambda: self.store.last_event(attempt))
        output = Output(str(request.kind), configuration.limits.events - last)
        watch = _Watch(self, attempt, output, last, configuration.limits.job_time.total_seconds())
        if attempt.number > 1:
            why = "the last one did not end, as its host stopped or was lost"
            text = f"attempt {attempt.number}: {why}"
            output.add(made_event(str(request.kind), "notice", "warning", text))
        code, error = self._command(configuration, request, output, watch)
        if self.stopping.is_set():
            return
        failure = error or (f"the command ended with exit code {code}" if code else "")
        if watch.to_end and not error:
            failure = ""  # it was cancelled
        output.end(failure)
        while not watch.write():
            self._pause()
        ended = watch.to_end
        self._until_available(lambda: self.store.finish(attempt, code, error, ended=ended))
        if failure:
            _log.warning("job %s failed: %s: %s", attempt.job_id, _work(request), failure)

    def _fail(self, attempt: Attempt, text: str) -> None:
        self._until_available(lambda: self.store.finish(attempt, None, text, ended=False))
        _log.error("job %s failed: %s", attempt.job_id, text)

    def _command(
        self,
        configuration: ServiceConfiguration,
        request: JobRequest,
        output: Output,
        watch: _Watch,
    ) -> tuple[int | None, str]:
        """Run the command; return its exit code, and why it failed if the code does not tell."""
        pause, longest = _OTHER_RUN_SECONDS
        while True:
            try:
                program = publisher_program(job_words(configuration, request))
                environment = job_environment(configuration, self.environment, request.project)
                child = Child(program, environment, configuration.state, output)
                code = child.wait(watch.look)
                output.end_command()
            except (CannotRun, UnsafeCredentials, OSError) as error:
                return None, failure_text(error, str(request.kind))
            if code != _OTHER_RUN or not self._waited(pause, watch):
                break
            pause = min(2 * pause, longest)
        if watch.timed_out:
            return None, f"ended after {configuration.limits.job_time}, as limits.job-time states"
        if code < 0 and not watch.to_end:
            return None, f"the command was ended by signal {-code}"
        return (code if code >= 0 else None), ""

    def _waited(self, seconds: float, watch: _Watch) -> bool:
        """Wait until the command is tried again; return False as soon as the job is to end."""
        until = time.monotonic() + seconds
        while not watch.look():
            if time.monotonic() >= until:
                return True
            self.stopping.wait(_WAIT_STEP)
        return False

    def _until_available(self, call: Callable[[], _T]) -> _T:
        while True:
            try:
                return call()
            except JobsUnavailable as error:
                _log.warning("%s", error)
                self._pause()

    def _pause(self) -> None:
        if self.stopping.wait(_RETRY_SECONDS):
            raise _Stopping


@dataclass(slots=True)
class _Watch:
    """Looks after a running command: stores its events, and decides whether it is to end."""

    runner: JobRunner
    attempt: Attempt
    output: Output
    stored: int
    seconds: float
    to_end: bool = False
    timed_out: bool = False
    _began: float = field(default_factory=time.monotonic)
    _next: float = 0.0

    def look(self) -> bool:
        """Return whether the command is to end."""
        moment = time.monotonic()
        if moment - self._began > self.seconds:
            self.to_end = self.timed_out = True
        if moment >= self._next:
            written = self.write()
            self._next = time.monotonic() + (_WRITE_SECONDS if written else _RETRY_SECONDS)
        return self.to_end or self.runner.stopping.is_set()

    def write(self) -> bool:
        """Store new events; return False if the database cannot be reached."""
        try:
            while values := self.output.take():
                try:
                    current = self.runner.store.add_events(self.attempt, self.stored, values)
                except JobsUnavailable:
                    self.output.put_back(values)
                    raise
                self.stored += len(values)
                if not current:
                    break
            if self.runner.store.is_cancelled(self.attempt):
                self.to_end = True
        except JobsUnavailable as error:
            _log.warning("%s", error)
            return False
        return True
