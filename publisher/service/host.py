"""One host of the service: takes jobs, submits those of schedules, and watches the other hosts."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import filelock
import sqlalchemy as sa

from publisher.errors import PublisherError, printable
from publisher.service.audit import Audit
from publisher.service.configuration import InvalidServiceConfiguration, ServiceConfiguration
from publisher.service.jobs.database import connect, create_tables
from publisher.service.jobs.engine import Engine
from publisher.service.jobs.history import remove_old_jobs
from publisher.service.jobs.hosts import Hosts
from publisher.service.jobs.interrupted import Interrupted
from publisher.service.jobs.lanes import lanes_of
from publisher.service.jobs.lists import ConfiguredLists
from publisher.service.jobs.model import JobKind, JobRequest, JobsUnavailable, QueueFull
from publisher.service.jobs.running import JobRunner
from publisher.service.jobs.schedule import Scheduler
from publisher.service.jobs.store import StoredJobs
from publisher.service.jobs.worker import WorkerStore
from publisher.times import utc_now

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 2.0
_SCHEDULE_SECONDS = 1.0
_HISTORY_SECONDS = 600.0
_RECOVERY_SECONDS = 10.0
_BEATS = 6
"""How often a host counts within the time after which it is lost."""
_STOPPING_SECONDS = 75.0
_FIXED = ("state", "database", "listen")
"""What a reload cannot change."""


class StateInUse(PublisherError):
    """Another process uses the directory of this host's state."""


class Host:
    """The parts of one host, which run in threads until `stop`.

    `environment` is that of the process: jobs receive a part of it.
    """

    def __init__(self, configuration: ServiceConfiguration, environment: Mapping[str, str]) -> None:
        """Prepare the state; raise StateInUse or OSError. Nothing runs yet."""
        self.configuration = configuration
        self._lock = _locked(configuration.state)
        identifier = _identifier(configuration.state)
        self.engine: sa.Engine = connect(configuration.database)
        self.jobs = StoredJobs(self.engine, configuration.limits.queued)
        self._environment = environment
        self._allow_lanes(configuration)
        self.audit = Audit(self.engine)
        store = WorkerStore(self.engine, identifier)
        self._runner = JobRunner(configuration, environment, self.jobs, store)
        limits = configuration.limits
        self._queue = Engine(configuration.database, identifier, self._runner.run, limits.jobs)
        timeout = limits.host_timeout.total_seconds()
        self._hosts = Hosts(self.engine, identifier, socket.gethostname(), timeout)
        self._scheduler = Scheduler(self.engine, self.jobs)
        self._lists = ConfiguredLists(self.engine)
        self._noted: ServiceConfiguration | None = None
        self._beaten = float("-inf")
        self._trouble = "the database of jobs was not reached yet"
        self._launched = False
        self._threads: list[threading.Thread] = []

    @property
    def trouble(self) -> str:
        """Why the host takes no jobs, for requests without a token; "" if it does."""
        if self._stopping:
            return "the service ends"
        if self._trouble:
            return self._trouble
        is_silent = time.monotonic() - self._beaten > self._hosts.timeout
        return "the database of jobs does not answer" if is_silent else ""

    @property
    def _stopping(self) -> bool:
        return self._runner.stopping.is_set()

    def start(self) -> None:
        """Begin; the database may be away, and is waited for."""
        for work in (
            self._watch_hosts,
            self._submit_scheduled,
            self._bound_history,
            self._recover_interrupted,
        ):
            thread = threading.Thread(target=work, daemon=True, name=work.__name__.strip("_"))
            thread.start()
            self._threads.append(thread)

    def reload(self, configuration: ServiceConfiguration) -> None:
        """Use another configuration; raise InvalidServiceConfiguration, and change nothing."""
        for key in _FIXED:
            if getattr(configuration, key) != getattr(self.configuration, key):
                raise InvalidServiceConfiguration(
                    f"cannot reload {configuration.name}",
                    why=f"the value of {key} has changed",
                    hint="restart the service",
                )
        if configuration.limits.jobs != self.configuration.limits.jobs and self._launched:
            try:
                self._queue.allow_jobs(configuration.limits.jobs)
            except Exception as error:
                raise InvalidServiceConfiguration(
                    f"cannot reload {configuration.name}",
                    why=_cause(error),
                    hint="reload again when the database can be reached",
                ) from error
        self._hosts.timeout = configuration.limits.host_timeout.total_seconds()
        self.jobs.allow_queued(configuration.limits.queued)
        self._allow_lanes(configuration)
        self._runner.configuration = configuration
        self.configuration = configuration

    def stop(self) -> None:
        """End the commands of jobs in order; the jobs run elsewhere, or when this host is back.

        The process must end after that: threads of DBOS wait for the ends of jobs.
        """
        self._runner.stopping.set()
        until = time.monotonic() + _STOPPING_SECONDS
        while self._runner.active and time.monotonic() < until:
            time.sleep(0.05)
        if self._launched:
            with contextlib.suppress(JobsUnavailable):
                self._hosts.leave()

    def _allow_lanes(self, configuration: ServiceConfiguration) -> None:
        lanes = lanes_of(configuration, self._environment)
        self.jobs.allow_lanes(lanes, configuration.limited_projects)

    def _watch_hosts(self) -> None:
        while not self._stopping:
            pause = self._hosts.timeout / _BEATS
            try:
                if not self._launched:
                    create_tables(self.engine)
                    self._queue.launch()
                    self._launched = True
                lost = self._hosts.beat()
                self._beaten = time.monotonic()
                self._queue.recover(lost)
                for host in lost:
                    self._hosts.forget(host)
                self._queue.recover_forgotten(set(self._runner.active), self._hosts.timeout)
                self._trouble = ""
            except Exception as error:  # noqa: BLE001 - DBOS raises errors of several libraries
                _log.warning("%s", _cause(error))
                # Without the cause, which may name hosts and users.
                hint = error.hint if isinstance(error, JobsUnavailable) else "see the log"
                self._trouble = f"cannot use the database of jobs; try: {hint}"
                pause = min(pause, _RETRY_SECONDS)
            self._runner.stopping.wait(pause)

    def _submit_scheduled(self) -> None:
        def submit() -> None:
            if self._launched:
                self._note_lists(self.configuration)
                self._scheduler.submit_due(self.configuration, utc_now())

        repeat(submit, _SCHEDULE_SECONDS, self._runner.stopping)

    def _note_lists(self, configuration: ServiceConfiguration) -> None:
        """Record the lists of a new configuration, and reconcile repositories where some are not in
        it any more, or are again."""
        if configuration is self._noted:
            return
        for repository in configuration.repositories:
            if self._lists.note(repository, configuration.access.projects):
                reason = "the lists of the configuration have changed"
                request = JobRequest(
                    JobKind.RECONCILE, repository.name, requested_by="configuration"
                )
                self.jobs.submit(replace(request, reason=reason))
        self._noted = configuration

    def _recover_interrupted(self) -> None:
        interrupted = Interrupted(self._environment, self._runner.stopping)
        repeat(
            lambda: interrupted.recover(self.configuration),
            _RECOVERY_SECONDS,
            self._runner.stopping,
            at_once=True,
        )

    def _bound_history(self) -> None:
        def bound() -> None:
            remove_old_jobs(self.engine, self.jobs, self.configuration.history)
            self.audit.remove_old()

        repeat(bound, _HISTORY_SECONDS, self._runner.stopping)


def repeat(
    work: Callable[[], object],
    seconds: float,
    stopping: threading.Event,
    *,
    at_once: bool = False,
) -> None:
    """Call `work` every `seconds` until `stopping` is set; errors are logged, and end no thread.

    The first call is after `seconds`, or `at_once`.
    """
    pause = 0.0 if at_once else seconds
    while not stopping.wait(pause):
        pause = seconds
        try:
            work()
        except (JobsUnavailable, QueueFull) as error:
            _log.warning("%s", error)
        except Exception:  # noqa: BLE001 - of one job: the schedules of the others go on
            _log.exception("unexpected error; trying again in %g seconds", seconds)


def _locked(state: Path) -> filelock.BaseFileLock:
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    _close_to_others(state)
    lock = filelock.FileLock(state / "service.lock", mode=0o600, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise StateInUse(
            f"cannot use the state in {state}",
            why="another process of the service uses it",
            hint="end that process, or give this one a directory of its own",
        ) from error
    return lock


def _close_to_others(state: Path) -> None:
    """Let other users read nothing in the state: errors in it may quote private names."""
    found = state.stat()
    if found.st_uid == os.geteuid() and found.st_mode & 0o007:
        state.chmod(stat.S_IMODE(found.st_mode) & ~0o007)


def _identifier(state: Path) -> str:
    """Return the identifier of this host, the same after a restart."""
    path = state / "host"
    with contextlib.suppress(FileNotFoundError):
        text = path.read_text().strip()
        if text:
            return text
    text = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    draft = path.with_suffix(".draft")
    draft.write_text(f"{text}\n")
    os.replace(draft, path)
    return text


def _cause(error: Exception) -> str:
    """Return the text of an error of any library in one line."""
    if isinstance(error, PublisherError):
        return str(error)
    return printable(f"{type(error).__name__}: {' '.join(str(error).split())}")[:500]
