"""Tokens are created, used and revoked by requests, and are nowhere in the clear."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from publisher.service.access import Access, Anonymous, Token
from publisher.service.jobs.database import connect, create_tables
from publisher.service.jobs.store import StoredJobs
from publisher.service.login.senders import COOKIE
from publisher.service.login.sessions import Sessions
from publisher.service.login.tokens import Tokens
from publisher.service.projects import Member, Person, Project
from publisher.service.verbs import GRANTED, ROLES, Role
from publisher.service.web.application import application
from publisher.service.web.context import Context
from publisher.service.web.tokens import BASE
from tests.asgi import Answer, request
from tests.components import program
from tests.schemas import output_schema
from tests.web_service import run_examples, serve

NOW = datetime(2026, 11, 27, 10, 20, tzinfo=UTC)


def secret(name: str) -> str:
    return hashlib.sha256(f"secret-{name}".encode()).hexdigest()


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer secret-{name}"}


@dataclass(slots=True)
class Service:
    app: Any = None
    now: datetime = NOW
    projects: tuple[Project, ...] = (Project("own"), Project("other"))
    answers: list[Answer] = field(default_factory=list)

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: object = None
    ) -> Answer:
        sent = dict(headers)
        if body is not None:
            sent["Content-Type"] = "application/json"
        data = b"" if body is None else json.dumps(body).encode()
        found = request(self.app, method, path, sent, data)
        self.answers.append(found)
        return found

    def create(self, headers: Mapping[str, str], **body: object) -> Answer:
        wanted = {"name": "ci", "projects": ["own"], "allows": ["read"], **body}
        return self.ask("POST", BASE, headers, wanted)

    def names(self, headers: Mapping[str, str]) -> list[str]:
        found = self.ask("GET", BASE, headers).json()
        output_schema("tokens/1").validate(found)
        return [each["name"] for each in found["tokens"]]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    engine = connect(f"sqlite:///{tmp_path}/jobs.sqlite")
    create_tables(engine)
    roles = tuple(
        Token(f"{role}-{where}", secret(f"{role}-{where}"), ROLES[role], projects=projects)
        for role in Role
        for where, projects in (("own", ("own",)), ("both", ("own", "other")), ("all", ()))
    )
    found = Service()
    context = Context(
        list,
        lambda: Access(Anonymous.NOTHING, roles, found.projects),
        StoredJobs(engine, 10),
        database=engine,
        now=lambda: found.now,
    )
    found.app = application(context)
    yield found
    engine.dispose()


ADMIN, BOTH, OPERATOR = bearer("admin-own"), bearer("admin-both"), bearer("admin-all")


def test_a_token_is_created_used_listed_and_revoked(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = service.create(ADMIN)
    assert made.status_code == 201 and made.header("cache-control") == "no-store"
    output_schema("token/1").validate(made.json())
    text, identifier = made.json()["token"], made.json()["id"]
    assert made.header("location") == f"{BASE}/{identifier}"
    assert (made.json()["expires"], made.json()["usedAt"]) == ("2027-02-25", None)
    mine = {"Authorization": f"Bearer {text}"}
    identity = service.ask("GET", "/api/v1/identity", mine).json()
    assert (identity["name"], identity["grants"]) == (
        "ci",
        [{"project": "own", "role": "viewer", "verbs": ["read"]}],
    )
    assert service.ask("GET", "/api/v1/jobs", mine).status_code == 200
    assert service.ask("POST", BASE, mine, {}).status_code == 403
    service.now += timedelta(hours=2)
    assert service.ask("GET", "/api/v1/jobs", mine).status_code == 200
    [listed] = service.ask("GET", BASE, ADMIN).json()["tokens"]
    assert listed["usedAt"].startswith("2026-11-27T12:00:00") and "token" not in listed
    assert listed["createdBy"] == "admin-own"
    for wrong in (text[:-1], text + "a", text.upper(), text.removeprefix("pub_"), "pub_"):
        found = service.ask("GET", "/api/v1/jobs", {"Authorization": f"Bearer {wrong}"})
        assert found.status_code == 401
    for headers, status in ((bearer("admin-both"), 200), (bearer("maintainer-own"), 403)):
        if status == 403:
            path = f"{BASE}/{identifier}"
            assert service.ask("DELETE", path, headers).status_code == 403
    assert service.ask("DELETE", f"{BASE}/{identifier}", ADMIN).status_code == 200
    assert service.ask("DELETE", f"{BASE}/{identifier}", ADMIN).status_code == 404
    assert service.ask("GET", "/api/v1/jobs", mine).status_code == 401
    # Only the answer to the request that created it has the text.
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir()).decode("latin-1")
    logged = "\n".join(record.getMessage() for record in caplog.records)
    shown = [each.text + str(each.headers) for each in service.answers if each is not made]
    for where in (stored, logged, *shown):
        assert text not in where and text.removeprefix("pub_") not in where


def test_a_created_token_is_not_taken_for_another_one_of_its_name(service: Service) -> None:
    for _ in range(2):
        made = service.create(OPERATOR, name="admin-own", allows=["administer"]).json()
        mine = {"Authorization": f"Bearer {made['token']}"}
        of_it = service.create(mine, allows=["administer"]).json()
        assert of_it["createdBy"] == f"admin-own ({made['id']})"
    assert service.create(ADMIN).json()["createdBy"] == "admin-own"


def test_a_token_ends_on_its_day_and_with_its_project(service: Service) -> None:
    made = service.create(OPERATOR, projects=["own"], expires="2026-11-28").json()
    mine = {"Authorization": f"Bearer {made['token']}"}
    service.now = datetime(2026, 11, 27, 23, 59, 59, tzinfo=UTC)
    assert service.ask("GET", "/api/v1/jobs", mine).status_code == 200
    service.now += timedelta(seconds=1)
    assert service.ask("GET", "/api/v1/jobs", mine).status_code == 401
    service.now = NOW
    service.projects = (Project("other"),)
    assert service.ask("GET", "/api/v1/jobs", mine).status_code == 403


def test_the_tokens_and_sessions_of_a_member_end_with_the_membership(
    service: Service, tmp_path: Path
) -> None:
    members = (Member(Role.ADMIN, user="paula"), Member(Role.ADMIN, group="staff"))
    service.projects = (Project("own", members), Project("other", members[:1]))
    sessions = Sessions(connect(f"sqlite:///{tmp_path}/jobs.sqlite"))

    def log_in(name: str, *groups: str) -> dict[str, str]:
        person = Person(name, frozenset(groups), {"unit": "x"})
        cookie = sessions.begin(person, service.now, timedelta(hours=1))
        csrf = hmac.new(cookie.encode(), b"csrf", "sha256").hexdigest()
        return {"Cookie": f"{COOKIE}={cookie}", "X-CSRF-Token": csrf}

    def create(headers: Mapping[str, str], **body: object) -> dict[str, str]:
        made = service.create(headers, allows=["read", "administer"], **body)
        assert made.status_code == 201, made.text
        return {"Authorization": f"Bearer {made.json()['token']}"}

    def grants(headers: Mapping[str, str]) -> dict[str, list[str]]:
        found = service.ask("GET", "/api/v1/identity", headers).json()["grants"]
        return {each["project"]: each["verbs"] for each in found}

    paula, erin = log_in("paula"), log_in("erin", "staff")
    both = create(paula, projects=["own", "other"], name="both")
    of_token, of_group = create(both, name="second"), create(erin, name="group")
    may = ["administer", "read"]
    assert grants(both) == {"own": may, "other": may}
    assert grants(of_token) == grants(of_group) == {"own": may}

    # In one project her role is smaller, and in the other one she is a member no more.
    service.projects = (Project("own", (Member(Role.VIEWER, user="paula"), members[1])),)
    assert grants(both) == grants(of_token) == {"own": ["read"]}
    assert grants(of_group) == {"own": may}
    service.projects = (Project("own", members[1:]), Project("other", members[1:]))
    for headers in (paula, both, of_token):
        assert grants(headers) == {}
        refused = service.ask("GET", "/api/v1/jobs", headers)
        assert refused.status_code == 403
        ended = "this one ended with the roles of the user who created it"
        assert (ended in refused.json()["hint"]) == (headers is not paula)
    service.projects = (Project("own"), Project("other"))
    assert grants(of_group) == {} and grants(erin) == {}

    # None is removed: when the member is configured again, the tokens are valid until they expire.
    tokens = Tokens(connect(f"sqlite:///{tmp_path}/jobs.sqlite"))
    assert tokens.remove_expired(service.now) == 0
    service.projects = (Project("own", members), Project("other", members))
    assert grants(both) != {}
    later = service.now + timedelta(days=400)
    assert tokens.remove_expired(later, dry_run=True) == 3
    assert tokens.remove_expired(later) == 3
    assert service.names(OPERATOR) == []


def test_a_token_allows_nothing_that_its_creator_is_not_allowed(service: Service) -> None:
    every = sorted(GRANTED)
    for headers, body, status in (
        (ADMIN, {"allows": every}, 201),
        (ADMIN, {"projects": ["other"]}, 403),
        (ADMIN, {"projects": ["own", "other"]}, 403),
        (ADMIN, {"projects": []}, 403),
        (ADMIN, {"projects": [""]}, 403),
        (BOTH, {"projects": ["own", "other"]}, 201),
        (OPERATOR, {"projects": []}, 201),
        (OPERATOR, {"projects": ["missing"]}, 422),
        (bearer("maintainer-own"), {}, 403),
        (bearer("maintainer-all"), {}, 403),
        ({}, {}, 401),
    ):
        assert service.create(headers, **body).status_code == status, (headers, body)
    only = service.create(OPERATOR, name="only", allows=["administer"]).json()["token"]
    mine = {"Authorization": f"Bearer {only}"}
    assert service.create(mine, allows=["read"]).status_code == 403
    assert service.create(mine, allows=["administer"]).status_code == 201
    wrong: list[dict[str, Any]] = [
        {"allows": []},
        {"allows": ["browse"]},
        {"allows": ["probe"]},
        {"name": "a b"},
        {"name": "a\n"},
        {"expires": "2026-11-27"},
        {"expires": "2027-11-29"},
        {"expires": "never"},
        {"more": 1},
    ]
    for body in wrong:
        found = service.create(OPERATOR, **body)
        assert found.status_code == 400, body
        output_schema("problem/1").validate(found.json())
    assert sorted(service.names(ADMIN)) == ["ci", "ci", "only"]
    assert sorted(service.names(OPERATOR)) == ["ci", "ci", "ci", "ci", "only"]
    assert service.ask("GET", BASE, bearer("editor-own")).status_code == 403
    tokens = service.ask("GET", BASE, OPERATOR).json()["tokens"]
    [of_both] = [each for each in tokens if len(each["projects"]) == 2]
    assert service.ask("DELETE", f"{BASE}/{of_both['id']}", ADMIN).status_code == 403


def test_the_examples_of_the_documentation_work(tmp_path: Path) -> None:
    program("curl")
    engine = connect(f"sqlite:///{tmp_path}/jobs.sqlite")
    create_tables(engine)
    known = (Token("operator", secret("operator"), ROLES[Role.ADMIN]),)
    access = Access(Anonymous.NOTHING, known, (Project("astro"),))
    config = tmp_path / "curl"
    config.write_text('header = "Authorization: Bearer secret-operator"\n')
    now = datetime.now(UTC)
    to_revoke, _ = Tokens(engine).create("a", [], frozenset(), "", now, now + timedelta(days=1))
    with serve({}, access=lambda: access, database=engine) as web:
        names = {"token.curl": str(config), "IDENTIFIER": to_revoke.id}
        created, listed, revoked = run_examples(web, "Create and revoke tokens", **names)
    assert json.loads(created)["token"].startswith("pub_")
    assert {each["name"] for each in json.loads(listed)["tokens"]} == {"a", "pipeline"}
    assert json.loads(revoked)["id"] == to_revoke.id
    engine.dispose()
