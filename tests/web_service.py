"""The HTTP interface of the service in this process, by a real uvicorn on a port of loopback."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa
import uvicorn
from starlette.routing import BaseRoute

from publisher.repository.directory.repository import DirectoryRepository
from publisher.service.access import Access, Anonymous
from publisher.service.audit import Audit
from publisher.service.configuration import Limits, RepositoryConfiguration
from publisher.service.health import health_routes
from publisher.service.jobs.database import JOBS, connect, create_tables, now
from publisher.service.jobs.model import JobKind, Jobs, JobState
from publisher.service.jobs.store import StoredJobs
from publisher.service.jobs.worker import Attempt, WorkerStore
from publisher.service.web.application import application
from publisher.service.web.context import Context, PublishedTree
from publisher.site.survey import Remembered
from publisher.tree.layout import RepositoryURL
from tests.schemas import ROOT, output_schema


@dataclass(frozen=True, slots=True)
class Web:
    """A running service at `url`."""

    url: str

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(
            self.url + path,
            headers={name.replace("_", "-"): text for name, text in headers.items()},
            timeout=60,
            allow_redirects=False,
        )

    def document(self, path: str, kind: str) -> Any:
        """The document at `path`, which matches its schema."""
        found = self.get(path)
        assert found.status_code == 200, found.text
        output_schema(kind).validate(found.json())
        return found.json()

    def problem(self, path: str, status: int, method: str = "GET") -> Any:
        """The problem that a request for `path` has, which matches its schema."""
        found = requests.request(method, self.url + path, timeout=60)
        assert found.status_code == status, found.text
        assert found.headers["content-type"] == "application/problem+json"
        output_schema("problem/1").validate(found.json())
        assert found.json()["status"] == status and found.json()["hint"]
        return found.json()


@contextmanager
def serve(
    trees: dict[str, Path],
    jobs: Jobs | None = None,
    access: Callable[[], Access] = lambda: Access(Anonymous.EVERYTHING),
    remember: Callable[[], Remembered] = Remembered,
    repositories: Sequence[RepositoryConfiguration] = (),
    limits: Limits = Limits(),  # noqa: B008 - it is frozen
    audit: Audit | None = None,
    others: Sequence[BaseRoute] = (),
    database: sa.Engine | None = None,
) -> Iterator[Web]:
    """Serve directory repositories by their names. Each request looks for changes."""

    def tree(name: str, path: Path) -> PublishedTree:
        url = RepositoryURL("dir", str(path))
        return PublishedTree(name, f"Images of {name}", lambda: DirectoryRepository(url), remember)

    found = [tree(name, path) for name, path in trees.items()]
    context = Context(
        lambda: found,
        access,
        jobs,
        lambda: repositories,
        database=database,
        recheck=0,
        patience=60,
        limits=lambda: limits,
        audit=audit,
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            application(context, [*health_routes(lambda: ""), *others]),
            log_config=None,
            timeout_graceful_shutdown=1,
        ),
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Web(f"http://127.0.0.1:{listening.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@dataclass(frozen=True, slots=True)
class Running:
    """A service, and the database of its jobs."""

    web: Web
    engine: sa.Engine
    store: WorkerStore

    def begin(self, number: int) -> Attempt:
        """A job that runs, as if a host had taken it from the queue."""
        identifier = f"{number:012x}-{number:012x}"
        row = {
            "id": identifier,
            "work": identifier,
            "kind": str(JobKind.GC),
            "repository": "main",
            "subject": "",
            "arguments": "[]",
            "requested_by": "a test\x1b[31m",
            "reason": "",
            "state": str(JobState.QUEUED),
            "created": now(),
            "host": "",
            "error": "",
            "attempt": 0,
        }
        with self.engine.begin() as connection:
            connection.execute(sa.insert(JOBS).values(row))
        attempt = self.store.begin(identifier)
        assert attempt is not None
        return attempt


@contextmanager
def serve_jobs(directory: Path) -> Iterator[Running]:
    """Serve jobs from a new database in `directory`."""
    engine = connect(f"sqlite:///{directory}/jobs.sqlite")
    create_tables(engine)
    with serve({}, StoredJobs(engine, 100)) as web:
        yield Running(web, engine, WorkerStore(engine, "host"))


def run_examples(web: Web, section: str, **names: str) -> list[str]:
    """Run the commands of a section of docs/api.md with other names; return what they print."""
    text = (ROOT / "docs/api.md").read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    commands = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    assert commands
    printed = []
    for line in commands:
        line = line.replace("http://127.0.0.1:8080", web.url)
        for name, other in names.items():
            line = line.replace(name, other)
        shell = ["bash", "-o", "pipefail", "-c", line]
        done = subprocess.run(shell, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (line, done.stderr)
        printed.append(done.stdout)
    return printed
