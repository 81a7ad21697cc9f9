from __future__ import annotations

import hashlib
import ipaddress
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from publisher.service.access import Access, Anonymous, Token
from publisher.service.jobs.database import connect, create_tables
from publisher.service.jobs.store import StoredJobs
from publisher.service.jobs.worker import WorkerStore
from publisher.service.login.tokens import Tokens
from publisher.service.projects import Member
from publisher.service.providers import Proxy
from publisher.service.verbs import Role, Verb
from publisher.service.web import jobs as jobs_module
from tests.components import program
from tests.web_service import Running, run_examples, serve, serve_jobs


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve_jobs(tmp_path_factory.mktemp("jobs")) as served:
        yield served


def messages(answer: requests.Response) -> Iterator[dict[str, Any]]:
    """The messages of a stream of events."""
    found: dict[str, Any] = {}
    for line in answer.iter_lines(decode_unicode=True):
        if not line and found:
            yield found
            found = {}
        elif line and not line.startswith(":"):
            name, _, text = line.partition(": ")
            found[name] = json.loads(text) if name == "data" else text


def test_a_log_is_followed_while_it_is_written_and_continued(running: Running) -> None:
    web, attempt = running.web, running.begin(1)
    path = f"/api/v1/jobs/{attempt.job_id}"
    running.store.add_events(attempt, 0, [{"message": f"line {n}"} for n in range(700)])
    with requests.get(f"{web.url}{path}/live", stream=True, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        stream = messages(answer)
        seen = [next(stream) for _ in range(700)]
        assert [each["id"] for each in seen] == [str(n) for n in range(1, 701)]
        running.store.add_events(attempt, 700, [{"message": "evil\x1b[31m\ndata: x"}])
        later = next(stream)  # of a job that still runs
        assert later["data"]["event"] == {"message": "evil\\x1b[31m\\ndata: x"}
    with requests.get(
        f"{web.url}{path}/live", stream=True, timeout=60, headers={"Last-Event-ID": "700"}
    ) as answer:
        stream = messages(answer)
        assert next(stream)["id"] == "701"
        running.store.add_events(attempt, 701, [{"message": "last"}])
        running.store.finish(attempt, 0, "", ended=False)
        assert next(stream)["data"]["event"] == {"message": "last"}
        end = next(stream)
        assert end["event"] == "end" and end["data"]["state"] == "succeeded"
        assert list(stream) == []
    page = web.document(f"{path}/events?after=699&limit=2", "job-events/1")
    assert [each["number"] for each in page["events"]] == [700, 701]


def test_jobs_are_listed_and_shown(running: Running) -> None:
    web = running.web
    attempts = [running.begin(number) for number in (10, 11, 12)]
    running.store.finish(attempts[0], 3, "it failed", ended=False)
    first = web.document("/api/v1/jobs?limit=2&repository=main", "jobs/1")
    rest = web.document(f"/api/v1/jobs?limit=2&repository=main&cursor={first['next']}", "jobs/1")
    found = [each["id"] for each in first["jobs"] + rest["jobs"]]
    assert found[:3] == [each.job_id for each in reversed(attempts)]
    [failed] = web.document("/api/v1/jobs?state=failed&kind=gc", "jobs/1")["jobs"]
    assert failed["error"] == "it failed" and failed["exitCode"] == 3
    assert failed["requestedBy"] == "a test\\x1b[31m"
    assert web.document(f"/api/v1/jobs/{failed['id']}", "job/1")["state"] == "failed"
    for path, status, kind in (
        ("/api/v1/jobs/none", 404, "no-such-job"),
        ("/api/v1/jobs/a%00b", 404, "no-such-job"),
        ("/api/v1/jobs/none/live", 404, "no-such-job"),
        ("/api/v1/jobs?state=lost", 400, "bad-request"),
        ("/api/v1/jobs?cursor=%00", 400, "bad-request"),
    ):
        assert web.problem(path, status)["type"] == f"urn:publisher:problem:{kind}"


def follow(url: str, address: str) -> requests.Response:
    """Open a live log, as a client with this address."""
    with requests.Session() as session:
        adapter = HTTPAdapter()
        adapter.init_poolmanager(1, 1, source_address=(address, 0))
        session.mount("http://", adapter)
        return session.get(url, stream=True, timeout=60)


def test_two_hundred_logs_are_followed_at_once(running: Running) -> None:
    attempt = running.begin(100)
    path = f"{running.web.url}/api/v1/jobs/{attempt.job_id}/live"
    answers = [follow(path, address) for address in ("127.0.0.2", "127.0.0.3") for _ in range(100)]
    assert {each.status_code for each in answers} == {200}
    refused = follow(path, "127.0.0.2")  # of one sender, others can follow logs, too
    assert refused.status_code == 429 and refused.headers["retry-after"]
    last = follow(path, "127.0.0.4")
    assert last.status_code == 200
    running.store.add_events(attempt, 0, [{"message": "to all"}])
    running.store.finish(attempt, 0, "", ended=False)
    ends: list[list[str]] = []

    def read(answer: requests.Response) -> None:
        ends.append([each["event"] for each in messages(answer)])

    threads = [threading.Thread(target=read, args=(each,)) for each in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [["line", "end"]] * 200
    assert [each["event"] for each in messages(last)] == ["line", "end"]
    again = follow(path, "127.0.0.2")
    assert [each["event"] for each in messages(again)] == ["line", "end"]


def test_a_log_ends_soon_after_its_sender_may_not_follow_it_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("_CHECKED", 0.0), ("_QUIET", 0.0), ("_POLL", 0.01), ("_SHARED", 0.0)):
        monkeypatch.setattr(jobs_module, name, seconds)
    engine = connect(f"sqlite:///{tmp_path}/jobs.sqlite")
    create_tables(engine)
    now, reads = datetime.now(UTC), frozenset({Verb.READ})
    tokens = Tokens(engine)
    created, text = tokens.create("ci", [], reads, "", now, now + timedelta(1))
    digest = hashlib.sha256(b"configured").hexdigest()
    inside = Proxy((ipaddress.ip_network("127.0.0.1"),), "secret")
    access = Access(
        Anonymous.EVERYTHING,
        (Token("configured", digest, reads),),
        administrators=(Member(Role.VIEWER, user="alice"),),
        proxy=inside,
    )
    current = [access]

    def change(**changes: Any) -> Callable[[], None]:
        return lambda: current.__setitem__(0, replace(current[0], **changes))

    cases: tuple[tuple[dict[str, str], Callable[[], None], int], ...] = (
        ({"Authorization": f"Bearer {text}"}, lambda: tokens.revoke(created.id), 401),
        ({"Authorization": "Bearer configured"}, change(tokens=()), 401),
        ({}, change(anonymous=Anonymous.PUBLISHED), 401),
        (
            {"X-Publisher-Proxy": "secret", "X-Remote-User": "alice"},
            change(administrators=()),
            403,
        ),
    )
    with serve({}, StoredJobs(engine, 100), lambda: current[0], database=engine) as web:
        attempt = Running(web, engine, WorkerStore(engine, "host")).begin(1)
        for headers, withdraw, status in cases:
            path = f"{web.url}/api/v1/jobs/{attempt.job_id}/live"
            with requests.get(path, stream=True, timeout=60, headers=headers) as answer:
                lines = answer.iter_lines()
                assert answer.status_code == 200
                assert sum(line == b": the job runs" for line in islice(lines, 100)) == 50
                withdraw()
                assert len(list(islice(lines, 1000))) < 1000
            assert requests.get(path, timeout=60, headers=headers).status_code == status
    engine.dispose()


def test_the_examples_of_the_documentation_work(running: Running) -> None:
    program("curl")
    attempt = running.begin(200)
    running.store.add_events(attempt, 0, [{"message": "first"}, {"message": "second"}])
    running.store.finish(attempt, 0, "", ended=False)
    printed = run_examples(running.web, "Jobs and their logs", JOB=attempt.job_id)
    assert "first" in printed[3] and "first" not in printed[4]
    assert "second" in printed[4] and "event: end" in printed[4]
