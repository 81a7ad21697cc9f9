"""The database of the service is away, slow, read-only or full: all else works, and goes on."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import sqlalchemy as sa

from publisher.service.jobs.database import connect
from publisher.service.jobs.model import Job, JobState
from tests.command import succeed
from tests.components import require_mounts, run
from tests.postgresql import SlowConnections, postgresql
from tests.service import AskedJobs, HostProcess, eventually, running_host, write_lists

pytestmark = pytest.mark.system

TOKEN = "submits"
AWAY = "make sure that the database runs, and that this user may connect to it"
FULL = "free space for the database of jobs"
READ_ONLY = "make the database writable: it may be a standby, or on a file system that is read-only"


class Service:
    """A host whose lists are `list0`, `list1`, and `waits`, which is read when it is written."""

    def __init__(self, directory: Path, state: Path, **more: object) -> None:
        self.lists = write_lists(directory, lists=3, images=1)
        self.repository = f"dir:{directory}/images"
        self._pipe = directory / "waits"
        self._writer = -1
        os.mkfifo(self._pipe)
        sources = {**self.lists, "waits": self._pipe}
        self.host = HostProcess(
            "serve",
            directory / "host",
            {
                "state": str(state),
                "limits": {"host-timeout": "3s"},
                "access": {"anonymous": "everything"},
                "tokens": [
                    {
                        "name": "test",
                        "sha256": hashlib.sha256(TOKEN.encode()).hexdigest(),
                        "allows": ["submit"],
                    }
                ],
                "repositories": {
                    "images": {
                        "url": self.repository,
                        "lists": {name: {"source": str(path)} for name, path in sources.items()},
                    }
                },
                **more,
            },
        )

    def submit(self, wish_list: str, key: str = "") -> requests.Response:
        """Request an ingest of a list."""
        return requests.post(
            f"http://127.0.0.1:{self.host.port}/api/v1/jobs",
            json={"kind": "ingest-list", "repository": "images", "list": wish_list},
            headers={"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": key or wish_list},
            timeout=60,
        )

    def refuses(self, wish_list: str, hint: str) -> None:
        """Wait until the service is not ready; all but what needs the database is answered."""
        self.host_is_not_ready(hint)
        answer = self.submit(wish_list)
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["hint"] == hint, answer.text
        assert self.host.status("/livez") == 200
        assert self.host.status("/api/v1/repositories") == 200

    def host_is_not_ready(self, hint: str) -> None:
        def text() -> str:
            return requests.get(f"http://127.0.0.1:{self.host.port}/readyz", timeout=60).text

        eventually(lambda: hint in text())
        assert self.host.status("/readyz") == 503

    def is_ready(self) -> bool:
        assert self.host.process.poll() is None, self.host.log.read_text()
        return self.host.status("/readyz") == 200

    def list_is_read(self) -> bool:
        """Whether the command of `waits` runs: it waits for the contents of its list."""
        try:
            self._writer = os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO, error
            return False
        return True

    def write_list(self) -> None:
        """Let the command of `waits` read its list."""
        with open(self._writer, "wb") as file:
            file.write(self.lists["list2"].read_bytes())

    def check_published(self, images: int) -> None:
        """Each image was published once."""
        options = ("--repository", self.repository, "--limit", "1000", "--output", "json")
        history = succeed("log", *options).json["transactions"]
        names = [c["name"] for each in history for c in each["changes"] if c["what"] == "published"]
        assert len(names) == len(set(names)) == images


def ended_once(asked: AskedJobs, answer: requests.Response) -> Job:
    """Wait for the end of a job that was accepted: it has succeeded in one attempt."""
    assert answer.status_code in (200, 202), answer.text
    found = asked.end_of(asked.jobs.get(answer.json()["id"]))
    assert (found.state, found.attempt) == (JobState.SUCCEEDED, 1), asked.messages(found)
    return found


def begun(service: Service, asked: AskedJobs, answer: requests.Response) -> None:
    """Wait until the command of a job of `waits` runs, which is later than the job's state."""
    assert answer.status_code == 202, answer.text
    eventually(service.list_is_read)
    assert asked.jobs.get(answer.json()["id"]).state is JobState.RUNNING


def test_a_database_that_is_away_read_only_or_slow_is_waited_for(tmp_path: Path) -> None:
    with postgresql() as database, SlowConnections(database, tmp_path) as between:
        database.stop()
        service = Service(tmp_path, tmp_path / "state", database=between.url)
        asked = AskedJobs(database.url)
        with running_host(service.host):
            eventually(lambda: service.host.status("/livez") == 200)
            service.refuses("list0", AWAY)
            database.start()
            eventually(service.is_ready)
            ended_once(asked, service.submit("list0"))

            # It is away while a job runs, and while its command ends.
            waits = service.submit("waits")
            begun(service, asked, waits)
            database.stop()
            service.refuses("list1", AWAY)
            service.write_list()
            eventually(lambda: (tmp_path / "images").is_dir() and _images(service) == 2)
            database.start()
            ended_once(asked, waits)
            eventually(service.is_ready)

            with read_only(database.url):
                service.refuses("list1", READ_ONLY)
                assert service.host.status("/api/v1/jobs") == 200
            eventually(service.is_ready)

            between.delay = 0.05
            ended_once(asked, service.submit("list1"))
            between.delay = 0.0

            between.flows.clear()
            service.host_is_not_ready("the database of jobs does not answer")
            assert service.host.status("/api/v1/repositories") == 200
            between.flows.set()
            eventually(service.is_ready)
            ended_once(asked, service.submit("list1", "again"))
            jobs = asked.jobs.list().jobs
            assert [each.request.subject for each in jobs] == ["list1", "list1", "waits", "list0"]
            assert service.host.stop() == 0
    service.check_published(3)


def _images(service: Service) -> int:
    return len(
        succeed("list", "--repository", service.repository, "--output", "json").json["images"]
    )


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """Within the block, the server accepts no changes."""
    engine = connect(url).execution_options(isolation_level="AUTOCOMMIT")
    for value in ("on", "off"):
        with engine.connect() as connection:
            connection.execute(sa.text(f"ALTER SYSTEM SET default_transaction_read_only = {value}"))
            connection.execute(sa.text("SELECT pg_reload_conf()"))
        if value == "on":
            yield
    engine.dispose()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    require_mounts()
    point = tmp_path / "disk"
    point.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", point)
    yield point
    run("umount", "-l", point)


def test_a_full_disk_of_the_state_is_reported_and_jobs_go_on_when_it_has_space(
    tmp_path: Path, small_disk: Path
) -> None:
    service = Service(tmp_path, small_disk / "state")
    with running_host(service.host):
        eventually(service.is_ready)
        asked = AskedJobs(f"sqlite:///{small_disk}/state/jobs.sqlite")
        ended_once(asked, service.submit("list0"))
        waits = service.submit("waits")
        begun(service, asked, waits)
        with filled(small_disk):
            service.refuses("list1", FULL)
            service.write_list()
            eventually(lambda: _images(service) == 2)
        ended_once(asked, waits)
        eventually(service.is_ready)
        ended_once(asked, service.submit("list1"))
        assert len(asked.jobs.list().jobs) == 3
        assert service.host.stop() == 0
    service.check_published(3)


@contextmanager
def filled(point: Path) -> Iterator[None]:
    """Within the block, a file system has no free space."""
    filler = point / "filler"
    with filler.open("wb", buffering=0) as file:
        size = shutil.disk_usage(point).free
        while size >= 512:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    yield
    filler.unlink()
