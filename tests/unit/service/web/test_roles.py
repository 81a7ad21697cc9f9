"""What each role may do: the table in docs/service.md, for each verb, project and identity."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from publisher.repository.directory.repository import DirectoryRepository
from publisher.service.access import Access, Anonymous, Token
from publisher.service.jobs.database import JOBS, connect, create_tables
from publisher.service.jobs.model import JobKind, JobState
from publisher.service.jobs.store import StoredJobs
from publisher.service.login.senders import COOKIE
from publisher.service.login.sessions import Sessions
from publisher.service.projects import Member, Person, Project
from publisher.service.providers import SECRET_HEADER, JobRule, JobTokens, Provider, Proxy
from publisher.service.verbs import OPEN, ROLES, UNKNOWN, Reach, Role, Verb
from publisher.service.web.application import application
from publisher.service.web.context import Context, PublishedTree
from publisher.service.web.guard import GuardedRoute, allow, visible
from publisher.site.survey import Remembered
from publisher.state.model import Tries
from publisher.tree.layout import RepositoryURL
from tests.asgi import request
from tests.command import succeed
from tests.layer_builder import file, image, layer, write_layout
from tests.oidc_provider import OidcProvider
from tests.schemas import ROOT

PROJECTS = ("own", "other", "")


def documented() -> dict[Role, frozenset[Verb]]:
    """The table of docs/service.md: the verbs of each role."""
    text = (ROOT / "docs/service.md").read_text()
    [table] = re.findall(r"(?m)^\| verb \|.*\n(?:\|.*\n)+", text)
    head, _, *rows = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()
    ]
    roles = [Role(name.strip("`")) for name in head[2:]]
    found: dict[Role, set[Verb]] = {role: set() for role in roles}
    for verb, _, *cells in rows:
        assert set(cells) <= {"yes", "no"}
        for role, cell in zip(roles, cells, strict=True):
            found[role] |= {Verb(verb.strip("`"))} if cell == "yes" else set()
    return {role: frozenset(verbs) for role, verbs in found.items()}


ROLES_OF_THE_PAGE = documented()


def test_the_page_has_the_roles_of_the_program_and_each_includes_those_before_it() -> None:
    assert ROLES_OF_THE_PAGE == ROLES
    assert [*ROLES] == [*Role]
    smaller = frozenset[Verb]()
    for role in Role:
        assert smaller < ROLES[role]
        smaller = ROLES[role]


def routes() -> list[GuardedRoute]:
    """For each verb, a route about an object of any project, a list of objects, and the service."""

    async def one(request: Request) -> Response:
        allow(request, request.path_params["project"].removeprefix("-"))
        return Response("answered")

    async def many(request: Request) -> Response:
        found = visible(request)
        return JSONResponse(None if found is None else sorted(found))

    async def whole(request: Request) -> Response:
        return Response("answered")

    async def forgets(request: Request) -> Response:
        return Response("answered")

    made = []
    for verb in Verb:
        for method in ("GET", "POST"):
            made += [
                GuardedRoute(f"/test/{verb}/one/{{project}}", one, verb, method, Reach.OBJECT),
                GuardedRoute(f"/test/{verb}/many", many, verb, method, Reach.OBJECT),
                GuardedRoute(f"/test/{verb}/forgets", forgets, verb, method, Reach.OBJECT),
                GuardedRoute(f"/test/{verb}/service", whole, verb, method),
            ]
    return made


def secret(name: str) -> str:
    return hashlib.sha256(f"secret-{name}".encode()).hexdigest()


def identities(
    known: Known,
) -> Iterator[tuple[str, dict[str, frozenset[Verb]], dict[str, str]]]:
    """Each kind of identity: its name, what it may do where, and its headers."""
    yield "anonymous", {}, {}
    for role in Role:
        verbs = ROLES_OF_THE_PAGE[role]
        yield f"token {role} of own", {"own": verbs}, bearer(f"{role}-own")
        yield f"token {role} of all", dict.fromkeys(PROJECTS, verbs), bearer(f"{role}-all")

        # Members: users who have logged in, users of the proxy, and jobs of a forge.
        yield f"user {role} of own", {"own": verbs}, known.session(role)
        yield f"proxy {role} of own", {"own": verbs}, known.proxied(role)
        yield f"job {role} of own", {"own": verbs}, known.job(role)


@dataclass(frozen=True, slots=True)
class Known:
    """Makes the headers of members with a role."""

    engine: sa.Engine
    issuer: OidcProvider

    def session(self, role: Role) -> dict[str, str]:
        person = Person(f"user-{role}", frozenset({str(role)}))
        cookie = Sessions(self.engine).begin(person, datetime.now(UTC), timedelta(hours=1))
        csrf = hmac.new(cookie.encode(), b"csrf", "sha256").hexdigest()
        return {"Cookie": f"x=y; {COOKIE}={cookie}", "X-CSRF-Token": csrf}

    def proxied(self, role: Role) -> dict[str, str]:
        csrf = hmac.new(PROXY.secret.encode(), b"csrf\0paula", "sha256").hexdigest()
        headers = {"X-Remote-User": "paula", "X-Remote-Groups": str(role), "X-CSRF-Token": csrf}
        return {SECRET_HEADER: PROXY.secret, **headers}

    def job(self, role: Role) -> dict[str, str]:
        token = self.issuer.token(aud="publisher", role=str(role))
        return {"Authorization": f"Bearer {token}"}

    def access(self) -> Access:
        rules = tuple(JobRule("own", {"role": str(role)}, ROLES[role]) for role in Role)
        forge = JobTokens("forge", Provider(self.issuer.issuer), "publisher", rules)
        members = tuple(Member(role, group=str(role)) for role in Role)
        projects = (Project("own", members), Project("other"))
        return replace(ACCESS, projects=projects, job_tokens=(forge,), proxy=PROXY)


PROXY = Proxy((ipaddress.ip_network("127.0.0.1"),), "the secret of the proxy")


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer secret-{name}"}


ACCESS = Access(
    Anonymous.NOTHING,
    tuple(
        Token(f"{role}-{where}", secret(f"{role}-{where}"), ROLES[role], projects=projects)
        for role in Role
        for where, projects in (("own", ("own",)), ("all", ()))
    ),
    (Project("own"), Project("other")),
)


def expected(grants: dict[str, frozenset[Verb]], verb: Verb, project: str) -> bool:
    if verb in OPEN:
        return True
    if verb is Verb.BROWSE:  # what is published has no project
        return any(Verb.READ in verbs for verbs in grants.values())
    return verb in grants.get(project, ())


def status_of(app: ASGIApp, method: str, base: str, headers: dict[str, str], path: str) -> int:
    found = request(app, method, base + path, headers)
    assert "secret-" not in found.text
    return found.status_code


@pytest.fixture
def known(engine: sa.Engine) -> Iterator[Known]:
    with OidcProvider() as issuer:
        yield Known(engine, issuer)


def test_each_verb_is_allowed_to_the_roles_of_the_table_in_their_projects_only(
    known: Known,
) -> None:
    checked = 0
    access = known.access()
    app = application(Context(list, lambda: access, database=known.engine), routes())
    for name, grants, headers in identities(known):
        refused = 401 if name == "anonymous" else 403
        for verb in Verb:
            somewhere = any(expected(grants, verb, project) for project in PROJECTS)
            for method in ("GET", "POST"):
                where = name, verb, method

                status = partial(status_of, app, method, f"/test/{verb}", headers)
                for project in PROJECTS:
                    answered = 200 if expected(grants, verb, project) else refused
                    assert status(f"/one/-{project}") == answered, (*where, project)
                    checked += 1
                everywhere = expected(grants, verb, "")
                assert status("/service") == (200 if everywhere else refused), where
                is_decided = verb in UNKNOWN
                unchecked = (200 if is_decided else 500) if somewhere else refused
                assert status("/forgets") == unchecked, where
                listed = request(app, method, f"/test/{verb}/many", headers)
                assert listed.status_code == (200 if somewhere else refused), where
                if somewhere and not everywhere:
                    assert listed.json() == ["own"], where
    assert checked == 21 * len(Verb) * 2 * len(PROJECTS)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    found = connect(f"sqlite:///{tmp_path}/jobs.sqlite")
    create_tables(found)
    for number, project in enumerate(PROJECTS, 1):
        row = {
            "id": str(number),
            "work": str(number),
            "kind": str(JobKind.INGEST_LIST),
            "repository": "main",
            "subject": f"list of {project}",
            "arguments": "[]",
            "requested_by": "",
            "reason": "",
            "state": str(JobState.SUCCEEDED),
            "created": 0,
            "host": "",
            "error": "",
            "attempt": 1,
            "project": project,
        }
        with found.begin() as connection:
            connection.execute(sa.insert(JOBS).values(row))
    yield found
    found.dispose()


def test_jobs_are_shown_to_the_viewers_of_their_project(engine: sa.Engine) -> None:
    app = application(Context(list, lambda: ACCESS, StoredJobs(engine, 10)), ())
    base = "/api/v1/jobs"
    for headers, shown in (({}, None), (bearer("viewer-own"), {"1"}), (bearer("viewer-all"), ANY)):
        listed = request(app, "GET", base, headers)
        assert listed.status_code == (401 if shown is None else 200)
        if shown is not None:
            assert {each["id"] for each in listed.json()["jobs"]} == shown
        for job in ANY:
            for path in (f"{base}/{job}", f"{base}/{job}/events", f"{base}/{job}/live"):
                found = request(app, "GET", path, headers)
                refused = 401 if shown is None else 403
                answered = 200 if shown and job in shown else refused
                assert found.status_code == answered, (path, headers)
    assert request(app, "GET", f"{base}/4", bearer("viewer-own")).status_code == 404
    # A filter does not show more.
    found = request(app, "GET", f"{base}?repository=main&limit=500", bearer("viewer-own"))
    assert [each["project"] for each in found.json()["jobs"]] == ["own"]


ANY = {"1", "2", "3"}


def test_the_states_of_wishes_are_shown_to_the_viewers_of_their_project(tmp_path: Path) -> None:
    then = datetime(2026, 11, 26, tzinfo=UTC)
    tries = [
        Tries(f"/w/{project}", f"a/{project}", "", then, failing_since=then, error="e", tries=1)
        for project in ("own", "other", "free")
    ]
    url = RepositoryURL("dir", str(tmp_path / "images"))
    built = image(layer(file("etc/motd", b"hello")))
    write_layout(built, tmp_path / "layout", "1")
    source = f"oci:{tmp_path}/layout:1"
    succeed("ingest-image", source, "--name", "team/a", "--repository", str(url))
    tree = PublishedTree(
        "main",
        "Main",
        lambda: DirectoryRepository(url),
        lambda: Remembered(tuple(tries), None, True),
    )
    lists = {"/w/own": "own", "/w/other": "other"}
    context = Context(
        lambda: [tree],
        lambda: ACCESS,
        recheck=0,
        patience=60,
        project_of=lambda repository, wish_list: lists.get(wish_list, ""),
    )
    app = application(context, ())
    path = "/api/v1/repositories/main/wishes"
    for _ in range(2):  # the second answers are those that were kept
        for headers, shown in (
            (bearer("viewer-own"), ["/w/own"]),
            (bearer("viewer-all"), ["", "/w/free", "/w/other", "/w/own"]),
        ):
            found = request(app, "GET", path, headers)
            assert sorted(each["wishList"] for each in found.json()["wishes"]) == shown
            assert found.json()["total"] == len(shown)
        assert request(app, "GET", path).status_code == 401
        pages = "/repositories/main"
        assert request(app, "GET", f"{pages}/wishes.html", bearer("viewer-own")).status_code == 403
