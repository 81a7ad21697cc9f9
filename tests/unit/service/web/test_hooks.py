"""Webhooks over HTTP: their secrets, which bodies are read, and what is queued."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from dbos import DBOS

from publisher.oci.media_types import OCI_MANIFEST
from publisher.service.audit import Audit
from publisher.service.configuration import ListConfiguration, RepositoryConfiguration
from publisher.service.hooks.authentication import recorded_path
from publisher.service.hooks.model import Hook, HookKind
from publisher.service.hooks.replays import SECONDS, Replays
from publisher.service.jobs.database import connect, create_tables
from publisher.service.jobs.pushed import PushedImages
from publisher.service.jobs.store import StoredJobs
from publisher.service.web.hooks import MOST_BYTES, HookContext, hook_routes
from publisher.wishlist import WishListError, parse_wish_list
from publisher.wishlist.model import Wish
from tests.schemas import output_schema
from tests.web_service import Web, serve

SECRET = "topsecret-0123456789"
LISTS = {
    "/astro": ("registry.example.org/astro/app:1", "ghcr.io/astro/app:1.*"),
    "/bio": ("quay.io/bio/app:1", "registry.example.org/astro/app:1"),
    "/git": ("registry.example.org/astro/group/app:1",),
}


def body(tag: str = "1", repository: str = "astro/app") -> bytes:
    target = {"mediaType": OCI_MANIFEST, "repository": repository, "tag": tag}
    return json.dumps({"events": [{"action": "push", "target": target}]}).encode()


def package(tag: str) -> bytes:
    version = {"container_metadata": {"tag": {"name": tag}}}
    value = {"name": "app", "namespace": "astro", "package_type": "container"}
    return json.dumps(
        {"action": "published", "package": {**value, "package_version": version}}
    ).encode()


@dataclass(slots=True)
class Service:
    web: Web
    jobs: StoredJobs
    audit: Audit
    session: requests.Session = field(default_factory=requests.Session)

    def post(self, path: str, data: Any, **headers: str) -> requests.Response:
        return self.session.post(
            f"{self.web.url}/hooks/{path}",
            data=data,
            headers={name.replace("_", "-"): text for name, text in headers.items()},
            timeout=60,
        )

    def queued(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Cancel all jobs; return their lists and arguments."""
        found = self.jobs.list().jobs
        active = [job for job in found if not job.state.is_final]
        for job in active:
            self.jobs.cancel(job.id, "test")
            assert job.request.requested_by.startswith("webhook ")
        return {
            (job.request.repository, job.request.subject): job.request.arguments for job in active
        }


@contextmanager
def served(directory: Path, seconds: float = 60) -> Iterator[Service]:
    url = f"sqlite:///{directory}/jobs.sqlite"
    engine = connect(url)
    create_tables(engine)
    DBOS.migrate(url)
    jobs = StoredJobs(engine, 100)
    registry = "registry.example.org"
    hooks = [
        Hook("own", HookKind.DISTRIBUTION, SECRET, registry),
        Hook("bio", HookKind.DISTRIBUTION, SECRET, registry, frozenset({"second"})),
        Hook("github", HookKind.GITHUB, SECRET, "ghcr.io"),
        Hook("gitlab", HookKind.GITLAB, SECRET, registry),
        Hook("quay", HookKind.QUAY, SECRET, "quay.io"),
    ]
    repositories = [
        RepositoryConfiguration(
            "first",
            "dir:/r",
            tuple(ListConfiguration(name[1:], name) for name in ("/astro", "/git")),
        ),
        RepositoryConfiguration("second", "dir:/s", (ListConfiguration("bio", "/bio"),)),
        RepositoryConfiguration("third", "dir:/t", (ListConfiguration("lost", "/lost"),)),
    ]

    def wishes(source: str) -> tuple[Wish, ...]:
        if source not in LISTS:
            raise WishListError(f"cannot read wish list {source}", why="it is away")
        text = "version: 2\nimages:\n" + "".join(f"  - {each}\n" for each in LISTS[source])
        return parse_wish_list(text.encode(), source, allow_local=True).wishes

    context = HookContext(
        lambda: hooks, lambda: repositories, wishes, PushedImages(engine, jobs).submit, seconds
    )
    audit = Audit(engine)
    with serve({}, jobs, others=hook_routes(context), audit=audit) as web:
        service = Service(web, jobs, audit)
        with service.session:
            yield service
    engine.dispose()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with served(tmp_path_factory.mktemp("hooks")) as found:
        yield found


BEARER = f"Bearer {SECRET}"


def test_a_push_queues_an_ingest_of_the_wishes_that_request_it(service: Service) -> None:
    found = service.post("own", body(), Authorization=BEARER)
    assert found.status_code == 202, found.text
    output_schema("hook/1").validate(found.json())
    assert found.json()["images"] == 1 and len(found.json()["jobs"]) == 2
    selected = ("--retry-failed", "--only=registry.example.org/astro/app:1")
    assert service.queued() == {("first", "astro"): selected, ("second", "bio"): selected}
    # Of a hook for one repository, the others do not matter.
    assert service.post("bio", body(), Authorization=SECRET).status_code == 202
    assert service.queued() == {("second", "bio"): selected}


def test_a_burst_becomes_one_job_for_each_list(service: Service) -> None:
    for _ in range(20):
        assert service.post("own", body(), Authorization=BEARER).status_code == 202
    assert len(service.jobs.list().jobs) == len({job.id for job in service.jobs.list().jobs})
    assert len(service.queued()) == 2


def test_images_that_nothing_requests_do_nothing(service: Service) -> None:
    for data in (body("2"), body("1", "astro/other"), b'{"events": []}'):
        found = service.post("bio", data, Authorization=BEARER)
        assert (found.status_code, found.json()["jobs"]) == (202, [])
    assert service.queued() == {}


def test_each_kind_has_its_secret_in_its_place(service: Service) -> None:
    signature = hmac.new(SECRET.encode(), package("1.5"), hashlib.sha256).hexdigest()
    signed = {"X-Hub-Signature-256": f"sha256={signature}"}
    pipeline = {
        "object_kind": "pipeline",
        "object_attributes": {"status": "success"},
        "project": {"path_with_namespace": "astro/group"},
    }
    quay = json.dumps({"repository": "bio/app", "updated_tags": ["1"]})
    assert service.post("github", package("1.5"), **signed).status_code == 202
    selected = ("--retry-failed", "--only=ghcr.io/astro/app:1.5")
    assert service.queued() == {("first", "astro"): selected}
    found = service.post("gitlab", json.dumps(pipeline), X_Gitlab_Token=SECRET)
    assert found.status_code == 202
    selected = ("--retry-failed", "--only=registry.example.org/astro/group/app:1")
    assert service.queued() == {("first", "git"): selected}
    assert service.post(f"quay/{SECRET}", quay).status_code == 202
    selected = ("--retry-failed", "--only=quay.io/bio/app:1")
    assert service.queued() == {("second", "bio"): selected}
    paths = {each.path for each in service.audit.list()}
    assert "/hooks/quay" in paths and SECRET not in "".join(paths)
    # The same signed request is accepted, and does nothing.
    again = service.post("github", package("1.5"), **signed)
    assert (again.status_code, again.json()["jobs"]) == (202, [])
    assert service.queued() == {}


def test_requests_without_the_secret_are_refused_and_it_is_not_logged(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "wrongsecret-0123456789"
    cases: list[tuple[str, bytes, dict[str, str]]] = [
        ("own", body(), {}),
        ("own", body(), {"Authorization": f"Bearer {wrong}"}),
        ("own", body(), {"Authorization": f"Basic {SECRET}"}),
        ("own", body(), {"X-Gitlab-Token": SECRET}),
        (f"own/{SECRET}", body(), {}),
        (f"own/{SECRET}", body(), {"Authorization": BEARER}),
        ("gitlab", b"{}", {"X-Gitlab-Token": SECRET[:-1]}),
        ("github", package("1.6"), {}),
        ("github", package("1.6"), {"X-Hub-Signature-256": f"sha256={'0' * 64}"}),
        ("github", package("1.6"), {"X-Hub-Signature-256": f"sha256={SECRET}"}),
        ("github", package("1.6"), {"X-Hub-Signature": "sha1=" + "0" * 40}),
        ("quay", b"{}", {}),
        (f"quay/{wrong}", b"{}", {}),
        ("quay", b"{}", {"Authorization": BEARER}),
    ]
    for path, data, headers in cases:
        found = service.post(path, data, **headers)
        assert found.status_code == 401, (path, headers, found.text)
        output_schema("problem/1").validate(found.json())
        assert SECRET not in found.text and wrong not in found.text
    for path, status in ((f"quay/{SECRET}", 400), (f"quay/{SECRET}/more", 404), ("none", 404)):
        found = service.post(path, b"{", Authorization=BEARER)
        assert found.status_code == status, found.text
    assert service.session.get(f"{service.web.url}/hooks/own", timeout=60).status_code == 405
    assert service.queued() == {}
    texts = [
        record.getMessage() for record in caplog.records if record.name.startswith("publisher")
    ]
    assert texts and "secret-0" not in "\n".join(texts)


def test_a_list_that_cannot_be_read_makes_the_registry_send_again(service: Service) -> None:
    found = service.post("own", body("7"), Authorization=BEARER)
    assert found.status_code == 503 and found.headers["Retry-After"]
    assert "it is away" in found.json()["detail"]


def test_bodies_are_bounded_whatever_they_declare(service: Service) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(3):
            yield b" " * (MOST_BYTES // 2)

    large = service.post("own", endless(), Authorization=BEARER)  # chunked: no length
    assert large.status_code == 413
    assert large.json()["detail"] == f"it is larger than {MOST_BYTES} bytes"
    for length, status in (("99999999999999999999", 413), (str(MOST_BYTES + 1), 413), ("-1", 400)):
        assert _raw(service.web, f"Content-Length: {length}") == status
    for coding in ("gzip", "deflate", "gzip, identity"):
        found = service.post("own", b"\x1f\x8b", Authorization=BEARER, Content_Encoding=coding)
        assert found.status_code == 415
    found = service.post("own", b"[" * 10_000, Authorization=BEARER)
    assert found.status_code == 400 and found.json()["hint"]
    assert service.queued() == {}


def _raw(web: Web, *headers: str) -> int:
    """Send a request without a body, with these headers; return the status."""
    host = web.url.removeprefix("http://")
    name, _, port = host.partition(":")
    lines = ["POST /hooks/own HTTP/1.1", f"Host: {host}", f"Authorization: {BEARER}", *headers]
    with socket.create_connection((name, int(port)), 60) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(connection.recv(65536).split(b" ")[1])


def test_a_body_that_does_not_arrive_is_not_waited_for(tmp_path: Path) -> None:
    with served(tmp_path, seconds=0.05) as service:
        assert _raw(service.web, "Content-Length: 10") == 408


def test_bodies_whose_sender_is_not_known_keep_no_others_away(service: Service) -> None:
    host, _, port = service.web.url.removeprefix("http://").partition(":")
    head = f"POST /hooks/github HTTP/1.1\r\nHost: {host}\r\nX-Hub-Signature-256: x\r\n"
    with ExitStack() as stack:
        for _ in range(64):
            slow = stack.enter_context(socket.create_connection((host, int(port)), 60))
            slow.sendall(f"{head}Content-Length: 10\r\n\r\n".encode())
        statuses = set()
        while 503 not in statuses:  # until all of these have arrived
            statuses.add(service.post("github", b"{}", X_Hub_Signature_256="x").status_code)
        assert service.post("own", b'{"events": []}', Authorization=BEARER).status_code == 202
    found = service.post("github", b"x", X_Hub_Signature_256="x", Content_Encoding="gzip")
    assert found.status_code in (415, 503)
    assert {each.status for each in service.audit.list() if each.path == "/hooks/github"} <= {202}


def test_the_path_that_logs_have_is_without_the_secret() -> None:
    for path in (f"/hooks/quay/{SECRET}", f"//hooks//quay/{SECRET}\n/x", f"/hooks/quay/a/{SECRET}"):
        assert SECRET not in recorded_path(path) and "quay" in recorded_path(path)
    for path in ("/hooks/quay", "/api/v1/jobs", "/x/hooks/a/b"):
        assert recorded_path(path) == path


def test_a_signed_body_is_new_again_after_an_hour() -> None:
    now = time.monotonic()
    times = [now]
    replays = Replays(lambda: times[0])
    replays.accept("a", b"1")
    assert replays.is_known("a", b"1")
    assert not replays.is_known("b", b"1") and not replays.is_known("a", b"2")
    times[0] += SECONDS + 1
    assert not replays.is_known("a", b"1")
