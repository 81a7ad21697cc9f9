"""Requests that change something are recorded; too many of them are refused."""

from __future__ import annotations

import hashlib
import ipaddress
from pathlib import Path

import pytest
import requests
from dbos import DBOS

from publisher.service.access import Access, Token, Verb
from publisher.service.audit import Audit
from publisher.service.configuration import Limits, RepositoryConfiguration
from publisher.service.jobs.database import connect, create_tables
from publisher.service.jobs.model import JobsUnavailable
from publisher.service.jobs.store import StoredJobs
from publisher.service.providers import Proxy
from publisher.service.web.jobs import BASE
from tests.schemas import output_schema
from tests.web_service import serve


def token(name: str, *verbs: Verb) -> Token:
    return Token(name, hashlib.sha256(f"secret-{name}".encode()).hexdigest(), frozenset(verbs))


def test_requests_that_change_something_are_recorded_and_too_many_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    engine = connect(url)
    create_tables(engine)
    DBOS.migrate(url)
    audit = Audit(engine)
    access = Access(
        tokens=(
            token("editor", Verb.SUBMIT, Verb.REMOVE),
            token("other", Verb.SUBMIT),
            token("admin", Verb.ADMINISTER, Verb.READ),
        ),
        url="http://127.0.0.1",
        proxy=Proxy((ipaddress.ip_network("127.0.0.1"),), "secret-proxy"),
    )
    body = {"kind": "gc", "repository": "images"}
    with serve(
        {},
        StoredJobs(engine, 100),
        lambda: access,
        repositories=(RepositoryConfiguration("images", "dir:/none"),),
        limits=Limits(writes=3),
        audit=audit,
    ) as web:

        def post(name: str, value: object = body, path: str = BASE) -> requests.Response:
            headers = {"Authorization": f"Bearer secret-{name}"}
            return requests.post(web.url + path, json=value, headers=headers, timeout=60)

        assert post("editor").status_code == 202
        assert post("editor", {"kind": "rm"}).status_code == 400
        assert post("other").status_code == 403
        assert post("wrong").status_code == 401
        job = audit.list()[-1]
        assert job.path == BASE

        def fail(*arguments: object) -> None:
            raise JobsUnavailable("cannot reach the database of jobs", why="away")

        with monkeypatch.context() as patch:
            patch.setattr(audit, "add", fail)
            assert post("editor").status_code == 200
        assert "not in the audit log: POST /api/v1/jobs by editor from 127.0.0.1" in caplog.text
        refused = post("editor")
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
        output_schema("problem/1").validate(refused.json())
        assert refused.json()["hint"]
        assert post("admin").status_code == 403

        headers = {"Authorization": "Bearer secret-admin"}
        found = requests.get(f"{web.url}/api/v1/audit?limit=2", headers=headers, timeout=60)
        output_schema("audit/1").validate(found.json())
        cursor = f"{web.url}/api/v1/audit?cursor={found.json()['next']}"
        rest = requests.get(cursor, headers=headers, timeout=60)
        entries = [*found.json()["entries"], *rest.json()["entries"]]
        assert [(each["sender"], each["status"]) for each in entries] == [
            ("admin", 403), ("other", 403), ("editor", 400), ("editor", 202),
        ]  # fmt: skip
        assert {each["address"] for each in entries} == {"127.0.0.1"}
        assert rest.json()["next"] is None
        # A user of the proxy, whose request no page of the service has sent.
        headers = {"X-Publisher-Proxy": "secret-proxy", "X-Remote-User": "alice"}
        answer = requests.post(web.url + BASE, json=body, headers=headers, timeout=60)
        assert answer.status_code == 403
        [entry] = audit.list(limit=1)
        assert (entry.sender, entry.address, entry.status) == ("alice", "127.0.0.1", 403)
        for name, status in (("editor", 403), ("wrong", 401)):
            headers = {"Authorization": f"Bearer secret-{name}"}
            answer = requests.get(f"{web.url}/api/v1/audit", headers=headers, timeout=60)
            assert answer.status_code == status
        for _ in range(40):
            last = requests.get(web.url + BASE, headers=headers, timeout=60)
        assert last.status_code == 429
        headers = {"Authorization": "Bearer secret-admin"}
        answer = requests.get(f"{web.url}/api/v1/audit", headers=headers, timeout=60)
        assert answer.status_code == 200
    audit.remove_old(1)
    assert [each.sender for each in audit.list()] == ["alice"]
    engine.dispose()


def test_the_log_keeps_its_entries_whatever_others_send(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/jobs.sqlite")
    create_tables(engine)
    audit = Audit(engine)
    access = Access(tokens=(token("reader", Verb.READ),))
    with serve(
        {},
        StoredJobs(engine, 100),
        lambda: access,
        limits=Limits(writes=3),
        audit=audit,
        database=engine,
    ) as web:
        for path, status in (("/logout", 303), (f"{BASE}/", 404), ("/jobs/x/cancel/", 404)):
            found = requests.post(web.url + path, allow_redirects=False, timeout=60)
            assert found.status_code == status, path
        assert audit.list() == []
        headers = {"Authorization": "Bearer secret-reader"}
        answers = [
            requests.post(web.url + BASE, headers=headers, timeout=60).status_code for _ in range(5)
        ]
        assert answers == [403, 403, 403, 429, 429]
        assert [each.sender for each in audit.list()] == ["reader"] * 3
    engine.dispose()
