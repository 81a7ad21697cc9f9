"""Hosts of the service as processes: started, killed, and asked for their jobs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import requests
import yaml

from publisher.service.jobs.database import connect
from publisher.service.jobs.model import Job, JobRequest, JobsUnavailable
from publisher.service.jobs.store import StoredJobs
from tests.command import command, environment
from tests.layer_builder import file, image, layer, write_layout
from tests.processes import descendants

SECONDS = 240.0
_T = TypeVar("_T")


def free_port() -> int:
    """A port that no process uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def write_lists(directory: Path, lists: int, images: int) -> dict[str, Path]:
    """Wish lists in `directory`, each with that many images, which share a layer."""
    shared = layer(file("shared", b"s" * 1000))
    found = {}
    for number in range(lists):
        layout = directory / f"layout{number}"
        wishes = []
        for count in range(images):
            own = layer(file(f"own-{number}-{count}", os.urandom(100)))
            write_layout(image(shared, own), layout, f"t{count}")
            wishes.append(f"oci:{layout}:t{count}")
        path = directory / f"list{number}.yaml"
        path.write_text(yaml.safe_dump({"version": 2, "images": wishes}))
        found[f"list{number}"] = path
    return found


class HostProcess:
    """A host with a state of its own; `role` is "serve" or "worker"."""

    def __init__(
        self,
        role: str,
        directory: Path,
        configuration: dict[str, object],
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.role = role
        self.directory = directory
        self.variables = variables
        self.port = free_port()
        self.configuration = {
            "version": 1,
            "listen": f"127.0.0.1:{self.port}",
            "state": str(directory / "state"),
            **configuration,
        }
        self.path = directory / "service.yaml"
        self.log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.write()

    def write(self, **changes: object) -> None:
        """Write the configuration, with changes."""
        self.configuration |= changes
        self.path.write_text(yaml.safe_dump(self.configuration))

    def start(self) -> None:
        """Start the host, and do not wait."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command(self.role, "--config", self.path),
                env=environment(self.directory, SECRET="hidden", **self.variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def name(self) -> str:
        """How jobs name it, once it has begun."""
        return (self.directory / "state/host").read_text().strip()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None
        return self._process

    def kill(self, everything: bool = False) -> None:
        """End the host as a loss of power does; with `everything`, all its commands, too."""
        commands = descendants(self.process.pid) if everything else []
        self.process.kill()
        for pid in commands:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(SECONDS)

    def stop(self) -> int:
        """End the host in order, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)

    def status(self, path: str) -> int:
        """The status of an answer; 0 without one."""
        try:
            return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=5).status_code
        except requests.ConnectionError:
            return 0


@contextmanager
def running_host(host: HostProcess) -> Iterator[HostProcess]:
    """Run a host until the end of the block, or until it has been ended."""
    host.start()
    try:
        yield host
    finally:
        if host.process.poll() is None:
            host.kill()


class AskedJobs:
    """The jobs of a database; calls are repeated while it is away."""

    def __init__(self, url: str) -> None:
        self.engine = connect(url)
        self.jobs = StoredJobs(self.engine, 10_000)

    def submit(self, *request: object, **more: str) -> Job:
        """Queue a job."""
        made = JobRequest(*request, **more)  # type: ignore[arg-type]
        return patiently(lambda: self.jobs.submit(made)).job

    def end_of(self, job: Job) -> Job:
        """Wait until the job has ended."""

        def ended() -> Job | None:
            found = self.jobs.get(job.id)
            return found if found.state.is_final else None

        return eventually(ended)

    def messages(self, job: Job) -> list[str]:
        """The texts of the events of a job."""
        events = patiently(lambda: self.jobs.events(job.id))
        assert [each.number for each in events] == list(range(1, len(events) + 1))
        return [str(each.value["message"]) for each in events]


def patiently(call: Callable[[], _T]) -> _T:
    """Call until the database can be reached."""
    until = time.monotonic() + SECONDS
    while True:
        try:
            return call()
        except JobsUnavailable:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def eventually(call: Callable[[], _T | None]) -> _T:
    """Call until the result is not None or False, and return it."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        found = patiently(call)
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {SECONDS} s: {call}")
