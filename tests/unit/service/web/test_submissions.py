"""Jobs are queued, cancelled and retried over HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from dbos import DBOS

from publisher.service.access import Access, Token, Verb
from publisher.service.configuration import History, ListConfiguration, RepositoryConfiguration
from publisher.service.jobs.database import JOBS, connect, create_tables
from publisher.service.jobs.history import remove_old_jobs
from publisher.service.jobs.model import Job, JobKind, JobState
from publisher.service.jobs.store import StoredJobs
from publisher.service.jobs.worker import WorkerStore
from publisher.service.verbs import ROLES, Role
from publisher.service.web.jobs import BASE
from publisher.site.survey import Remembered
from publisher.state.model import Tries
from tests.command import succeed
from tests.components import program
from tests.layer_builder import file, image, layer, write_layout
from tests.schemas import output_schema
from tests.web_service import Web, run_examples, serve

WISHES = "/api/v1/repositories/images/wishes"
MOMENT = datetime(2026, 11, 26, tzinfo=UTC)


def tries(name: str, wish_list: str, reference: str = "", error: str = "no") -> Tries:
    since = MOMENT if error else None
    return Tries(
        wish_list, name, reference, MOMENT, last_failure=since, failing_since=since, error=error
    )


@dataclass(frozen=True, slots=True)
class Service:
    web: Web
    engine: sa.Engine
    jobs: StoredJobs

    def post(
        self, path: str, body: object = None, token: str = "editor", **headers: str
    ) -> requests.Response:
        names = {name.replace("_", "-"): text for name, text in headers.items()}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if body is not None:
            names = {"Content-Type": "application/json"} | names
        return requests.post(
            self.web.url + path,
            data=data if body is not None else None,
            headers={"Authorization": f"Bearer secret-{token}"} | names,
            timeout=60,
        )

    def accepted(self, path: str, body: object = None, status: int = 202, **more: str) -> Any:
        found = self.post(path, body, **more)
        assert found.status_code == status, found.text
        output_schema("job/1").validate(found.json())
        assert found.headers["location"] == f"{BASE}/{found.json()['id']}"
        return found.json()

    def refused(self, path: str, body: object, status: int, **more: str) -> Any:
        found = self.post(path, body, **more)
        assert found.status_code == status, (body, found.text)
        output_schema("problem/1").validate(found.json())
        assert found.json()["hint"]
        return found.json()

    def job(self, identifier: str) -> Job:
        return self.jobs.get(identifier)

    def end(self, identifier: str, state: JobState) -> None:
        with self.engine.begin() as connection:
            change = sa.update(JOBS).where(JOBS.c.id == identifier)
            connection.execute(change.values(state=str(state), ended=0))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("submissions")
    write_layout(image(layer(file("etc/motd", b"hello"))), root / "layout", "1")
    arguments = (f"oci:{root}/layout:1", "--name", "team/a", "--repository", root / "images")
    succeed("ingest-image", *arguments)
    url = f"sqlite:///{root}/jobs.sqlite"
    engine = connect(url)
    create_tables(engine)
    DBOS.migrate(url)
    jobs = StoredJobs(engine, 1000)
    lists = (
        ListConfiguration("astro", "/w/astro.yaml"),
        ListConfiguration("bio", "/w/bio.yaml"),
        ListConfiguration("own", "/w/own.yaml", project="own"),
    )
    access = Access(
        tokens=tuple(
            Token(name, hashlib.sha256(f"secret-{name}".encode()).hexdigest(), frozenset(verbs))
            for name, verbs in {
                "editor": (Verb.READ, Verb.SUBMIT, Verb.CANCEL, Verb.REMOVE),
                "other": (Verb.SUBMIT,),
            }.items()
        )
        + tuple(
            Token(
                f"{role}-{project}",
                hashlib.sha256(f"secret-{role}-{project}".encode()).hexdigest(),
                ROLES[role],
                projects=(project,),
            )
            for role in Role
            for project in ("own", "alien")
        )
    )
    remembered = Remembered(
        (
            tries("docker.io/library/debian:12", "/w/bio.yaml", error=""),
            tries("docker.io/library/debian:12", "/w/astro.yaml"),
            tries("docker.io/shared/x:1", "/w/astro.yaml"),
            tries("docker.io/shared/x:1", "/w/own.yaml", error=""),
            tries("docker.io/by-hand/x:1", "", "docker.io/by-hand/x:1"),
            tries("local/files/y:1", "", "oci:/srv/y:1"),
            tries("docker.io/old/z:1", "/w/removed.yaml"),
        ),
        None,
        True,
    )
    with serve(
        {"images": root / "images"},
        jobs,
        lambda: access,
        lambda: remembered,
        (RepositoryConfiguration("images", f"dir:{root}/images", lists),),
    ) as web:
        yield Service(web, engine, jobs)


@pytest.fixture(autouse=True)
def empty_queue(service: Service) -> None:
    with service.engine.begin() as connection:
        connection.execute(sa.update(JOBS).values(state=str(JobState.SUCCEEDED), ended=0))


def test_a_job_is_queued_once_and_records_its_sender_and_address(service: Service) -> None:
    body = {"kind": "ingest-list", "repository": "images", "list": "astro", "reason": "a\x1b"}
    first = service.accepted(BASE, body)
    assert (first["kind"], first["subject"], first["state"]) == ("ingest-list", "astro", "queued")
    assert (first["requestedBy"], first["requestedFrom"]) == ("editor", "127.0.0.1")
    assert first["reason"] == "a\\x1b"
    assert service.accepted(BASE, body, 200)["id"] == first["id"]
    one = service.accepted(BASE, body | {"image": "docker.io/library/debian:12"})
    assert service.job(one["id"]).request.arguments == (
        "--retry-failed",
        "--only=docker.io/library/debian:12",
    )
    image = {"kind": "ingest-image", "repository": "images", "image": "debian:12"}
    assert service.accepted(BASE, image)["subject"] == "debian:12"
    shown = requests.get(
        f"{service.web.url}{BASE}/{first['id']}",
        headers={"Authorization": "Bearer secret-editor"},
        timeout=60,
    )
    assert shown.json()["requestedFrom"] == "127.0.0.1"


def test_a_request_that_is_repeated_with_its_key_has_one_job(service: Service) -> None:
    body = {"kind": "gc", "repository": "images"}
    first = service.accepted(BASE, body, Idempotency_Key="k1")
    queued = service.accepted(
        BASE, body, status=200, Idempotency_Key="k2"
    )  # joined to the queued job
    service.end(first["id"], JobState.SUCCEEDED)
    for key in ("k1", "k2"):
        again = service.accepted(BASE, body, status=200, Idempotency_Key=key)
        assert again["id"] == queued["id"] == first["id"] and again["state"] == "succeeded"
    other = {"kind": "verify", "repository": "images"}
    found = service.refused(BASE, other, 422, Idempotency_Key="k1")
    assert found["type"].endswith(":key-reused") and found["data"] == {"jobId": first["id"]}
    # The same key of another sender is another one.
    theirs = service.accepted(BASE, other, token="other", Idempotency_Key="k1")
    assert theirs["id"] != first["id"]
    service.refused(BASE, body, 400, Idempotency_Key="k" * 256)
    remove_old_jobs(service.engine, service.jobs, History(jobs=0))
    assert service.accepted(BASE, body, Idempotency_Key="k1")["id"] != first["id"]


@pytest.mark.parametrize(
    ("body", "status", "parameter"),
    [
        (b"", 400, ""),
        (b"{", 400, ""),
        (b"[" * 30000, 400, ""),
        (b'{"kind": "gc", "repository": "images", "x": ' + b"[" * 30000, 400, ""),
        (b'{"kind": "gc", "repository": "\xff"}', 400, ""),
        (b" " * 70000, 413, None),
        ([], 400, ""),
        ({"kind": "gc"}, 400, ""),
        ({"kind": "rm", "repository": "images"}, 400, "kind"),
        ({"kind": "gc", "repository": 1}, 400, "repository"),
        ({"kind": "gc", "repository": ""}, 400, "repository"),
        ({"kind": "gc", "repository": "images", "arguments": ["--all"]}, 400, ""),
        ({"kind": "gc", "repository": "images", "list": "astro"}, 400, "list"),
        ({"kind": "gc", "repository": "images", "image": "debian"}, 400, "image"),
        ({"kind": "plan", "repository": "images"}, 400, "list"),
        ({"kind": "ingest-image", "repository": "images"}, 400, "image"),
        ({"kind": "ingest-image", "repository": "images", "image": "oci:/etc"}, 400, "image"),
        ({"kind": "ingest-image", "repository": "images", "image": "A B"}, 400, None),
        ({"kind": "gc", "repository": "other\x1b"}, 422, None),
        ({"kind": "plan", "repository": "images", "list": "none"}, 422, None),
        ({"kind": "site", "repository": "images"}, 422, None),
    ],
)
def test_a_malformed_request_queues_nothing(
    service: Service, body: object, status: int, parameter: str | None
) -> None:
    before = len(service.jobs.list().jobs)
    found = service.refused(BASE, body, status)
    if parameter is not None:
        assert found["data"]["parameter"] == parameter, found
    if parameter == "kind":
        assert found["detail"].endswith(f"; known are {', '.join(JobKind)}")
    assert len(service.jobs.list().jobs) == before


def test_a_body_that_is_not_stated_to_be_json_is_refused(service: Service) -> None:
    for kind in ("", "text/plain", "application/x-www-form-urlencoded"):
        service.refused(BASE, b'{"kind": "gc"}', 415, Content_Type=kind)


def test_jobs_are_cancelled_and_those_that_failed_retried(service: Service) -> None:
    store = WorkerStore(service.engine, "host")
    queued = service.accepted(BASE, {"kind": "ingest-list", "repository": "images", "list": "bio"})
    path = f"{BASE}/{queued['id']}"
    assert service.refused(f"{path}/retry", None, 409)["type"].endswith(":cannot-retry")
    assert service.accepted(f"{path}/cancel")["state"] == "cancelled"
    assert service.accepted(f"{path}/cancel")["error"] == "cancelled by editor"

    again = service.accepted(f"{path}/retry")
    assert again["id"] != queued["id"] and again["reason"] == f"retry of job {queued['id']}"
    assert service.job(again["id"]).request.arguments == ("--retry-failed",)
    path = f"{BASE}/{again['id']}"
    attempt = store.begin(again["id"])
    assert attempt is not None
    assert service.accepted(f"{path}/cancel")["state"] == "running"
    assert store.is_cancelled(attempt)
    store.finish(attempt, 1, "", ended=False)
    assert service.refused(f"{path}/cancel", None, 409)["type"].endswith(":job-ended")
    third = service.accepted(f"{path}/retry")
    assert service.job(third["id"]).request.arguments == ("--retry-failed",)
    for missing in ("none", "a%00b"):
        service.refused(f"{BASE}/{missing}/cancel", None, 404)
        service.refused(f"{BASE}/{missing}/retry", None, 404)


def test_failed_wishes_are_retried_by_the_list_that_has_them(service: Service) -> None:
    retried = service.accepted(f"{WISHES}/docker.io/library/debian:12/retry", token="other")
    assert (retried["kind"], retried["subject"]) == ("ingest-list", "astro")  # it fails there
    path = f"{WISHES}/docker.io/library/debian:12/retry?wishList=/w/bio.yaml"
    assert service.accepted(path)["subject"] == "bio"
    by_hand = service.accepted(f"{WISHES}/docker.io%2Fby-hand%2Fx:1/retry")
    assert (by_hand["kind"], by_hand["subject"]) == ("ingest-image", "docker.io/by-hand/x:1")
    service.refused(f"{WISHES}/local/files/y:1/retry", None, 400)
    service.refused(f"{WISHES}/docker.io/old/z:1/retry", None, 422)
    service.refused(f"{WISHES}/docker.io/none:1/retry", None, 404)
    service.refused(f"{WISHES}/docker.io/none:1/retry?x=1", None, 400)


def test_the_description_has_the_requests_and_their_bodies(service: Service) -> None:
    answer = requests.get(
        f"{service.web.url}/api/v1/openapi.json",
        headers={"Authorization": "Bearer secret-editor"},
        timeout=60,
    )
    paths = answer.json()["paths"]
    submit = paths[BASE]["post"]
    reference = submit["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert reference == "#/components/schemas/job-request-1"
    assert "job-request-1" in answer.json()["components"]["schemas"]
    assert {"200", "202", "400", "401", "403", "413", "415", "422"} <= set(submit["responses"])
    assert "Location" in submit["responses"]["202"]["headers"]
    assert set(paths[BASE]) == {"get", "post"}
    assert "requestBody" not in paths[BASE + "/{job}/cancel"]["post"]


def test_the_examples_of_the_documentation_work(service: Service, tmp_path: Path) -> None:
    program("curl")
    config = tmp_path / "curl"
    config.write_text('header = "Authorization: Bearer secret-editor"\n')
    queued = service.accepted(BASE, {"kind": "verify", "repository": "images"})
    failed = service.accepted(BASE, {"kind": "prune", "repository": "images", "reason": "test"})
    service.end(failed["id"], JobState.FAILED)
    printed = run_examples(
        service.web,
        "Queue, cancel and retry jobs",
        **{
            "token.curl": str(config),
            "QUEUED": queued["id"],
            "FAILED": failed["id"],
            "local/team/a:1": "docker.io/by-hand/x:1",
        },
    )
    assert [json.loads(each)["kind"] for each in printed] == [
        "ingest-list", "ingest-list", "ingest-image", "gc", "verify", "prune", "ingest-image",
    ]  # fmt: skip


def test_tables_of_an_earlier_release_get_the_new_column(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/jobs.sqlite")
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE publisher_jobs DROP COLUMN requested_from"))
    create_tables(engine)
    assert StoredJobs(engine, 1).list().jobs == ()
    engine.dispose()


@pytest.mark.parametrize("role", Role)
def test_a_member_changes_what_belongs_to_the_project_only(service: Service, role: Role) -> None:
    own, alien = f"{role}-own", f"{role}-alien"
    may_submit = role is not Role.VIEWER
    of_list = {"kind": "ingest-list", "repository": "images", "list": "own"}
    image = {"kind": "ingest-image", "repository": "images", "image": "docker.io/x:1"}
    for token, body, allowed in (
        (own, of_list, True),
        (own, {**of_list, "kind": "plan"}, True),
        (own, {**of_list, "image": "docker.io/x:1"}, True),
        (own, {**image, "project": "own"}, True),
        (own, image, False),
        (own, {**of_list, "list": "astro"}, False),
        (own, {**of_list, "list": "missing"}, False),
        (own, {"kind": "gc", "repository": "images"}, False),
        (own, {"kind": "verify", "repository": "images"}, False),
        (alien, of_list, False),
        (alien, {**image, "project": "own"}, False),
        ("other", of_list, None),
    ):
        if allowed is None or (allowed and may_submit):
            found = service.post(BASE, body, token)
            assert found.status_code in (200, 202), (token, body, found.text)
            project = found.json()["project"]
            assert project == service.job(found.json()["id"]).request.project == "own"
        else:
            service.refused(BASE, body, 403, token=token)
    if may_submit:  # the repository does not have this project
        service.refused(BASE, {**image, "project": "alien"}, 422, token=alien)
    job = service.accepted(BASE, {**of_list, "image": f"docker.io/{role}:1"}, token="other")["id"]
    for change in ("cancel", "retry"):
        service.refused(f"{BASE}/{job}/{change}", None, 403, token=alien)
    service.end(job, JobState.FAILED)
    service.refused(f"{BASE}/{job}/retry", None, 403, token=alien)
    if may_submit:
        again = service.accepted(f"{BASE}/{job}/retry", token=own)
        assert again["project"] == "own"
        cancelled = service.accepted(f"{BASE}/{again['id']}/cancel", token=own)
        assert cancelled["state"] == "cancelled"
    else:
        service.refused(f"{BASE}/{job}/retry", None, 403, token=own)
    wish = f"{WISHES}/docker.io/library/debian:12/retry"
    service.refused(wish, None, 404 if may_submit else 403, token=own)
    if may_submit:  # a wish of another project is answered like a missing one
        missing = wish.replace("debian:12", "missing:1")
        foreign = service.refused(wish, None, 404, token=own)
        unknown = service.refused(missing, None, 404, token=own)
        assert json.loads(json.dumps(foreign).replace("debian:12", "missing:1")) == unknown
        shared = f"{WISHES}/docker.io/shared/x:1/retry"
        assert service.accepted(shared, token=own)["subject"] == "own"


def test_only_images_have_a_project_in_the_request(service: Service) -> None:
    body = {"kind": "ingest-list", "repository": "images", "list": "own", "project": "own"}
    found = service.refused(BASE, body, 400)
    assert found["data"]["parameter"] == "project"
