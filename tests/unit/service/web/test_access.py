"""Which requests the running service answers: every route with every kind of identity."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import cast

import pytest
import requests
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from publisher.service.access import Access, Anonymous, Token, Verb
from publisher.service.audit import Audit
from publisher.service.health import health_routes
from publisher.service.jobs.database import connect, create_tables
from publisher.service.jobs.store import StoredJobs
from publisher.service.jobs.worker import WorkerStore
from publisher.service.web import rates as rates_module
from publisher.service.web.application import application
from publisher.service.web.context import Context
from publisher.service.web.guard import GuardedRoute, MissingVerb
from publisher.site.survey import Remembered
from publisher.state.model import Tries
from tests.command import succeed
from tests.components import program
from tests.layer_builder import file, image, layer, write_layout
from tests.schemas import output_schema
from tests.web_service import Running, Web, run_examples, serve

ONE = "/api/v1/repositories/{repository}"
JOB = "/api/v1/jobs/{job}"
TABLE = {
    "/livez": Verb.PROBE,
    "/readyz": Verb.PROBE,
    "/static/{name}": Verb.PROBE,
    "/": Verb.BROWSE,
    "/jobs": Verb.READ,
    "/jobs/{job}": Verb.READ,
    "/repositories/{repository}/{path:path}": Verb.BROWSE,
    "/repositories/{repository}/wishes.html": Verb.READ,
    "/api/v1/openapi.json": Verb.BROWSE,
    "/api/v1/audit": Verb.ADMINISTER,
    "/api/v1/repositories": Verb.BROWSE,
    f"{ONE}/images": Verb.BROWSE,
    f"{ONE}/images/{{name:path}}": Verb.BROWSE,
    f"{ONE}/files/{{name:path}}": Verb.BROWSE,
    f"{ONE}/packages/{{name:path}}": Verb.BROWSE,
    f"{ONE}/layers": Verb.BROWSE,
    f"{ONE}/removals": Verb.BROWSE,
    f"{ONE}/wishes": Verb.READ,
    "/api/v1/jobs": Verb.READ,
    "/projects": Verb.READ,
    "/api/v1/projects": Verb.READ,
    JOB: Verb.READ,
    f"{JOB}/events": Verb.READ,
    f"{JOB}/live": Verb.READ,
}
"""What each route is expected to need."""

TOKEN_ROUTES = {
    ("GET", "/api/v1/tokens"),
    ("POST", "/api/v1/tokens"),
    ("DELETE", "/api/v1/tokens/{token}"),
}
"""Those of a service with a database: tests/unit/service/login/test_tokens.py."""

LOGINS = {
    "/login": "GET",
    "/login/callback": "GET",
    "/logout": "POST",
    "/account": "GET",
    "/api/v1/identity": "GET",
}
"""The routes that each sender may use, with their methods: tests/unit/service/login."""

WRITES = {
    "/jobs/{job}/cancel": Verb.CANCEL,
    "/jobs/{job}/retry": Verb.SUBMIT,
    "/repositories/{repository}/retry": Verb.SUBMIT,
    "/api/v1/jobs": Verb.SUBMIT,
    f"{JOB}/cancel": Verb.CANCEL,
    f"{JOB}/retry": Verb.SUBMIT,
    f"{ONE}/wishes/{{name:path}}/retry": Verb.SUBMIT,
}
"""The same of the routes for POST, none of which a token for reading may use."""

FAILURE = "the registry refused a password"
NAME = "local/team/a:1"
READS = {Verb.PROBE, Verb.BROWSE, Verb.READ}
ANONYMOUS = {
    Anonymous.NOTHING: {Verb.PROBE},
    Anonymous.PUBLISHED: {Verb.PROBE, Verb.BROWSE},
    Anonymous.EVERYTHING: READS,
}


def token(name: str, *verbs: Verb, expires: date | None = None) -> Token:
    hashed = hashlib.sha256(f"secret-{name}".encode()).hexdigest()
    return Token(name, hashed, frozenset(verbs), expires)


TOKENS = (
    token("reader", Verb.READ),
    token("submitter", Verb.SUBMIT),
    token("canceller", Verb.CANCEL),
    token("old", Verb.READ, Verb.SUBMIT, Verb.CANCEL, expires=date(2026, 1, 1)),
)


@dataclass(slots=True)
class Service:
    web: Web
    session: requests.Session
    job: str
    access: Access

    def get(self, path: str, authorization: str = "", method: str = "GET") -> requests.Response:
        headers = {"Authorization": authorization} if authorization else {}
        return self.session.request(
            method, self.web.url + path, headers=headers, timeout=60, allow_redirects=False
        )

    def url(self, path: str) -> str:
        for part, text in (
            ("{repository}", "main"),
            ("{path:path}", "index.html"),
            ("{name:path}", NAME),
            ("{job}", self.job),
            ("{name}", "jobs.js"),
        ):
            path = path.replace(part, text)
        return path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("access")
    built = image(layer(file("etc/motd", b"hello")))
    write_layout(built, root / "layout", "1")
    arguments = (f"oci:{root}/layout:1", "--name", "team/a", "--repository", root / "images")
    succeed("ingest-image", *arguments)
    then = datetime(2026, 11, 26, tzinfo=UTC)
    tries = Tries("", NAME, "", then, last_failure=then, failing_since=then, error=FAILURE, tries=3)
    engine = connect(f"sqlite:///{root}/jobs.sqlite")
    create_tables(engine)
    found: list[Service] = []
    with (
        requests.Session() as session,
        serve(
            {"main": root / "images"},
            StoredJobs(engine, 100),
            lambda: found[0].access,
            lambda: Remembered((tries,), None, True),
            audit=Audit(engine),
        ) as web,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(rates_module, "_REFUSED", 10_000)
        store = WorkerStore(engine, "host")
        attempt = Running(web, engine, store).begin(1)
        store.finish(attempt, 0, "", ended=False)
        found.append(Service(web, session, attempt.job_id, Access()))
        yield found[0]


def routes(others: list[BaseRoute] | None = None) -> list[GuardedRoute]:
    """The routes of the application as `publisher serve` makes it."""
    jobs = StoredJobs(connect("sqlite://"), 1)
    health = [*health_routes(lambda: ""), *(others or [])]
    audit = Audit(connect("sqlite://"))
    context = Context(list, Access, jobs, audit=audit, database=connect("sqlite://"))
    return cast(list[GuardedRoute], application(context, health).routes)


def test_every_route_states_what_its_requests_do() -> None:
    found = {(frozenset(each.methods or ()), each.path): each.verb for each in routes()}
    reads = {(frozenset({"GET", "HEAD"}), path): verb for path, verb in TABLE.items()}
    writes = {(frozenset({"POST"}), path): verb for path, verb in WRITES.items()}
    both = {"GET": {"GET", "HEAD"}, "POST": {"POST"}, "DELETE": {"DELETE"}}
    of_tokens = {(frozenset(both[how]), path): Verb.ADMINISTER for how, path in TOKEN_ROUTES}
    logins = {(frozenset(both[how]), path): Verb.LOGIN for path, how in LOGINS.items()}
    assert found == reads | writes | logins | of_tokens


def test_a_route_without_a_verb_is_refused_at_the_start() -> None:
    async def endpoint(request: Request) -> Response:
        return Response()

    for route in (
        Route("/new", endpoint),
        GuardedRoute("/new", endpoint, cast(Verb, None)),
    ):
        with pytest.raises(MissingVerb, match="/new"):
            routes([route])


def test_each_route_answers_the_identities_that_may_use_it(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cases: list[tuple[Anonymous, str, set[Verb] | None]] = [
        (Anonymous.NOTHING, "Bearer secret-reader", READS),
        (Anonymous.NOTHING, "Bearer secret-canceller", {Verb.PROBE}),
        (Anonymous.EVERYTHING, "Bearer secret-old", None),
        (Anonymous.EVERYTHING, "Bearer secret-unknown", None),
        (Anonymous.EVERYTHING, "Basic c2VjcmV0LXJlYWRlcjo=", None),
    ]
    for each, readable in ANONYMOUS.items():
        cases += [(each, "", readable), (each, "Bearer secret-submitter", readable)]
    for anonymous, authorization, verbs in cases:
        service.access = Access(anonymous, TOKENS)
        for path, verb in TABLE.items():
            found = service.get(service.url(path), authorization)
            where = path, anonymous, authorization
            if verb in (verbs if verbs is not None else {Verb.PROBE}):
                assert found.status_code == (307 if path == "/" else 200), (where, found.text)
                if verb is not Verb.PROBE and path not in ("/", f"{JOB}/live"):
                    assert "Authorization, Cookie" in found.headers["vary"], where
            else:
                is_forbidden = bool(authorization) and verbs is not None
                assert found.status_code == (403 if is_forbidden else 401), where
                assert found.headers["content-type"] == "application/problem+json"
                output_schema("problem/1").validate(found.json())
                assert found.json()["hint"] and found.headers["cache-control"] == "no-store"
                challenge = 'Bearer realm="publisher"'
                if verbs is None:
                    challenge += ', error="invalid_token"'
                assert found.headers.get("www-authenticate") == (
                    None if is_forbidden else challenge
                )
            shown = found.text + str(found.headers)
            assert "secret-" not in shown and "c2VjcmV0" not in shown, where
            assert not any(known.sha256 in shown for known in TOKENS), where
        for path, verb in WRITES.items():
            found = service.get(service.url(path), authorization, "POST")
            allowed = {
                "Bearer secret-submitter": {Verb.SUBMIT},
                "Bearer secret-canceller": {Verb.CANCEL},
            }.get(authorization, set())
            where = path, anonymous, authorization
            if verb in allowed:  # the guard admits it; the bodies are missing
                assert found.status_code in (400, 409, 415, 422), (where, found.text)
            else:
                is_forbidden = bool(authorization) and verbs is not None
                assert found.status_code == (403 if is_forbidden else 401), where
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert "secret-" not in logged and "c2VjcmV0" not in logged


def test_other_methods_and_spellings_of_a_url_are_refused_alike(service: Service) -> None:
    service.access = Access(Anonymous.NOTHING, TOKENS)
    jobs = "/api/v1/jobs"
    assert service.get(jobs, method="HEAD").status_code == 401
    assert service.get(jobs, method="POST").status_code == 401
    refused = service.get(jobs, method="DELETE")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, POST")
    assert refused.json()["hint"] == "use GET or HEAD or POST"
    assert service.get("/", method="POST").headers["allow"] == "GET, HEAD"
    service.access = Access(Anonymous.PUBLISHED, TOKENS)
    folder = "/repositories/main"
    for path in (
        f"{folder}/wishes.html?x=1",
        f"{folder}/%77ishes.html",
        f"{folder}/wishes%2Ehtml",
        f"{folder}//wishes.html",
        f"{folder}/x/%2E%2E/wishes.html",
        f"{ONE.replace('{repository}', 'main')}/%77ishes",
    ):
        request = requests.Request("GET", service.web.url).prepare()
        request.url = service.web.url + path  # as it is, without a normal form
        found = service.session.send(request, timeout=60)
        assert found.status_code in (401, 404) and FAILURE not in found.text, path


def test_pages_about_what_is_published_do_not_show_the_states_of_wishes(service: Service) -> None:
    service.access = Access(Anonymous.PUBLISHED, TOKENS)
    folder = "/repositories/main"
    index = service.get(f"{folder}/index.html").text
    [page] = {
        f"{folder}/{part.partition(chr(34))[0]}"
        for part in index.split('href="')[1:]
        if part.startswith("images/")
    }
    reader = "Bearer secret-reader"
    for _ in range(2):  # the second answers are those that were kept
        for path in (page, f"{folder}/wishes.html"):
            assert FAILURE in service.get(path, reader).text
        assert "failing" in service.get(f"{folder}/index.html", reader).text
        assert FAILURE not in service.get(page).text
        assert "failing" not in service.get(f"{folder}/index.html").text
        assert FAILURE not in service.get(f"{folder}/wishes.html").text


def test_a_change_of_the_configuration_applies_to_the_next_request(service: Service) -> None:
    path, reader = "/api/v1/repositories", "Bearer secret-reader"
    service.access = Access(Anonymous.NOTHING, TOKENS)
    tag = service.get(path, reader).headers["etag"]
    service.access = Access(Anonymous.NOTHING, ())
    assert service.get(path, reader).status_code == 401
    headers = {"Authorization": reader, "If-None-Match": tag}
    found = service.session.get(service.web.url + path, headers=headers, timeout=60)
    assert found.status_code == 401


def test_the_examples_of_the_documentation_work(service: Service, tmp_path: Path) -> None:
    program("curl")
    service.access = Access(Anonymous.NOTHING, TOKENS)
    config = tmp_path / "curl"
    config.write_text('header = "Authorization: Bearer secret-reader"\n')
    [printed] = run_examples(service.web, "Tokens", **{"token.curl": str(config)})
    assert service.job in printed
    [printed] = run_examples(service.web, "The sender of a request", **{"token.curl": str(config)})
    assert '"name":"reader"' in printed and '"role":"viewer"' in printed
