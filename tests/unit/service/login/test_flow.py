"""People log in at a real OpenID Connect provider, and what is refused on the way."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import jwt
import pytest
import requests
import sqlalchemy as sa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from publisher.service.access import Access, Anonymous, Token
from publisher.service.jobs.database import connect, create_tables
from publisher.service.login.flow import is_local
from publisher.service.projects import Member, Project
from publisher.service.providers import Login, Provider
from publisher.service.verbs import Reach, Role, Verb
from publisher.service.web.application import application
from publisher.service.web.context import Context
from publisher.service.web.guard import GuardedRoute, allow, csrf_token
from tests.asgi import Answer, request
from tests.oidc_provider import CLIENT, SECRET, OidcProvider
from tests.schemas import output_schema
from tests.web_service import serve

URL = "https://images.example.org"
NOW = datetime.now(UTC)
SESSION, ATTEMPT = "__Host-publisher-session", "__Host-publisher-login"


async def page(request: Request) -> Response:
    allow(request, "astro")
    return PlainTextResponse(csrf_token(request))


async def write(request: Request) -> Response:
    allow(request, "astro")
    return PlainTextResponse(await request.body())


@dataclass(slots=True)
class Service:
    """The service, a provider, and the cookies of one browser."""

    provider: OidcProvider
    engine: sa.Engine
    now: datetime = NOW
    cookies: dict[str, str] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    app: Any = None

    def __post_init__(self) -> None:
        login = Login(Provider(self.provider.issuer), CLIENT, SECRET, session=timedelta(hours=1))
        members = (Member(Role.EDITOR, user="alice"), Member(Role.VIEWER, group="staff"))
        projects = (Project("astro", members),)
        access = Access(Anonymous.NOTHING, (), projects, url=URL, login=login)
        context = Context(list, lambda: access, database=self.engine, now=lambda: self.now)
        routes = [
            GuardedRoute("/page", page, Verb.READ, "GET", Reach.OBJECT),
            GuardedRoute("/write", write, Verb.SUBMIT, "POST", Reach.OBJECT),
        ]
        self.app = application(context, routes)

    def ask(self, target: str, method: str = "GET", body: Any = b"", **headers: str) -> Answer:
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={text}" for name, text in self.cookies.items())
        found = request(self.app, method, target, sent, body)
        for cookie in found.all("set-cookie"):
            pair, *attributes = cookie.split("; ")
            assert {"HttpOnly", "Secure", "SameSite=lax", "Path=/"} <= set(attributes)
            assert not any(each.startswith("Domain") for each in attributes)
            name, _, value = pair.partition("=")
            assert '"' not in value or value == '""'  # browsers keep quotes as a part of the value
            self.cookies[name] = value
            if "Max-Age=0" in attributes:
                del self.cookies[name]
        self.answers.append(found)
        return found

    def begin(self, path: str = "/page") -> str:
        """Begin a login, and return where the provider sends the browser."""
        found = self.ask(f"/login?{urlencode({'return': path})}")
        assert found.status_code == 303 and found.header("cache-control") == "no-store"
        sent = requests.get(found.header("location"), allow_redirects=False, timeout=10)
        target = sent.headers["location"]
        assert target.startswith(f"{URL}/login/callback?")
        return target.removeprefix(URL)

    def log_in(self, path: str = "/page") -> Answer:
        return self.ask(self.begin(path))

    @property
    def identity(self) -> Any:
        found = self.ask("/api/v1/identity").json()
        output_schema("identity/1").validate(found)
        return found


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcProvider]:
    with OidcProvider() as found:
        yield found


@pytest.fixture
def service(provider: OidcProvider, tmp_path: Path) -> Iterator[Service]:
    engine = connect(f"sqlite:///{tmp_path}/jobs.sqlite")
    create_tables(engine)
    provider.user = {"sub": "alice", "groups": ["staff"]}
    provider.change, provider.forge = lambda claims: claims, lambda token: token
    yield Service(provider, engine)
    engine.dispose()


def test_a_user_logs_in_has_the_roles_of_the_project_and_logs_out(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert service.ask("/page").status_code == 401
    led = service.ask("/page?x=1", Accept="text/html,*/*")
    assert (led.status_code, led.header("location")) == (303, "/login?return=%2Fpage%3Fx%3D1")
    assert service.ask("/write", "POST", Accept="text/html").status_code == 401
    done = service.log_in("/page?x=1")
    assert (done.status_code, done.header("location")) == (303, "/page?x=1")
    assert set(service.cookies) == {SESSION}
    assert service.identity["name"] == "alice" and service.identity["means"] == "user"
    assert service.identity["grants"] == [
        {"project": "astro", "role": "editor", "verbs": ["cancel", "read", "submit"]}
    ]
    first = dict(service.cookies)
    service.log_in()  # another login has another session, and the former one has ended
    second = dict(service.cookies)
    assert first != second
    service.cookies = dict(first)
    assert service.identity["name"] == ""
    service.cookies = dict(second)
    csrf = service.ask("/page").text
    assert service.ask("/logout", "POST").status_code == 403
    assert service.ask("/logout", "POST", X_CSRF_Token=csrf).status_code == 303
    assert service.cookies == {}
    service.cookies = dict(second)
    assert service.identity["name"] == "" and service.ask("/page").status_code == 401
    # Neither a log, nor an answer, nor the database has what would give access.
    secrets = [first[SESSION], second[SESSION], SECRET, csrf]
    logged = "\n".join(record.getMessage() for record in caplog.records)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir()).decode("latin-1")
    bodies = "".join(each.text for each in service.answers if each.text != csrf)
    for secret in secrets:
        assert secret not in stored and secret not in bodies
        assert secret not in "\n".join(x for x in logged.splitlines() if "127.0.0.1" not in x)


def test_a_session_ends_by_itself_and_members_of_no_project_may_nothing(service: Service) -> None:
    service.log_in()
    assert service.ask("/page").status_code == 200
    service.now = NOW + timedelta(minutes=61)
    assert service.ask("/page").status_code == 401
    service.now = NOW
    service.provider.user = {"sub": "mallory", "groups": "other"}
    service.log_in()
    assert service.identity["grants"] == []
    assert service.ask("/page").status_code == 403


def test_a_request_that_changes_something_comes_from_a_page_of_the_service(
    service: Service,
) -> None:
    service.log_in()
    csrf = service.ask("/page").text
    form = f"x=kept&csrf={csrf}".encode()
    is_form = {"Content_Type": "application/x-www-form-urlencoded"}
    for more in ({}, {"Origin": URL}, {"Sec_Fetch_Site": "same-origin", "Origin": URL}):
        found = service.ask("/write", "POST", form, **is_form, **more)
        assert (found.status_code, found.text) == (200, form.decode())
        assert service.ask("/write", "POST", X_CSRF_Token=csrf, **more).status_code == 200
    for more in (
        {"Origin": "https://evil.example.org"},
        {"Origin": "null"},
        {"Origin": "http://images.example.org"},
        {"Origin": f"{URL}.evil.example.org"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Origin": URL},
    ):
        for body, token in ((form, {}), (b"", {"X_CSRF_Token": csrf})):
            assert (
                service.ask("/write", "POST", body, **is_form, **more, **token).status_code == 403
            )
    for body in (
        b"",
        b"x=1",
        b"csrf=",
        b"csrf=" + csrf[:-1].encode() + b"x",
        form + b"&csrf=" + csrf.encode(),
        b"x" * 70_000 + form,
        b"&".join([b"a=b"] * 2000),
        b"csrf=%ff%c3%28",
    ):
        found = service.ask("/write", "POST", body, **is_form)
        assert found.status_code == 403 and "send a token" in found.json()["hint"], body[:20]
    # A form of another type is not read, and the text in the address is ignored.
    assert service.ask("/write", "POST", form, Content_Type="text/plain").status_code == 403
    assert service.ask(f"/write?csrf={csrf}", "POST").status_code == 403
    other = dict(service.cookies)
    service.log_in()
    assert service.cookies != other
    assert service.ask("/write", "POST", form, **is_form).status_code == 403  # of another session


def test_the_login_returns_to_pages_of_the_service_only(service: Service) -> None:
    for path in (
        "https://evil.example.org",
        "//evil.example.org/",
        "/\\evil.example.org",
        "\\\\evil.example.org",
        "/%0a//evil",
        "/a\nb",
        "/\t/evil.example.org",
        "javascript:alert(1)",
        "evil",
        "",
        "/" + "a" * 3000,
        "/é",
    ):
        expected = path if is_local(path) else "/"
        assert expected in ("/", "/%0a//evil"), path  # escaped, and so part of the path
        assert service.log_in(path).header("location") == expected
    random = base64.urlsafe_b64encode(b"//evil.example.org").decode()
    target = service.begin()
    service.cookies[ATTEMPT] = f"{service.cookies[ATTEMPT].partition('.')[0]}.{random}"
    assert service.ask(target).header("location") == "/"


def test_an_answer_that_is_not_one_to_the_login_of_this_browser_is_refused(
    service: Service,
) -> None:
    target = service.begin()
    cookie = service.cookies.pop(ATTEMPT)
    assert service.ask(target).status_code == 403  # begun in another browser
    service.cookies[ATTEMPT] = "A" * 43 + cookie[43:]
    assert service.ask(target).status_code == 403
    for wrong in ("", "x", cookie[:20], cookie.replace(".", ""), "é" * 43 + ".", "." * 60):
        service.cookies[ATTEMPT] = wrong
        assert service.ask(target.replace("é", "")).status_code == 403
    service.cookies[ATTEMPT] = cookie
    path, _, query = target.partition("?")
    parts = dict(each.split("=", 1) for each in query.split("&"))
    for changed in (
        {"state": "x"},
        {"state": ""},
        {"iss": "https://evil.example.org"},
        {"error": "access_denied"},
        {"code": ""},
        {"code": "a" * 5000},
    ):
        assert service.ask(f"{path}?{urlencode(parts | changed)}").status_code == 403, changed
    assert service.ask(f"{path}?{query}&state={parts['state']}").status_code == 403
    assert SESSION not in service.cookies
    assert service.ask(target).status_code == 303
    service.cookies[ATTEMPT] = cookie
    del service.cookies[SESSION]
    assert service.ask(target).status_code == 403  # the provider accepts a code once
    assert SESSION not in service.cookies


def parts_of(token: str) -> list[Any]:
    return [json.loads(base64.urlsafe_b64decode(each + "==")) for each in token.split(".")[:2]]


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def merging(changed: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda claims: claims | changed


def unsigned(algorithm: str) -> Callable[[str], str]:
    def forge(token: str) -> str:
        header, claims = parts_of(token)
        return f"{encoded(header | {'alg': algorithm})}.{encoded(claims)}.AAAA"

    return forge


def keyed(provider: OidcProvider) -> Callable[[str], str]:
    """Sign with HMAC, with the public key as the secret."""
    pem = provider.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def forge(token: str) -> str:
        header, claims = parts_of(token)
        signed = f"{encoded(header | {'alg': 'HS256'})}.{encoded(claims)}"
        digest = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
        return f"{signed}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"

    return forge


def headed(provider: OidcProvider, **header: object) -> Callable[[str], str]:
    def forge(token: str) -> str:
        known, claims = parts_of(token)
        del known["alg"]
        return jwt.encode(claims, provider.key, provider.algorithm, known | header)

    return forge


def test_tokens_of_the_provider_are_accepted_only_as_they_have_to_be(service: Service) -> None:
    provider = service.provider
    now = int(time.time())
    for changed in (
        {"nonce": "x"},
        {"nonce": None},
        {"nonce": 1},
        {"aud": "other"},
        {"aud": None},
        {"aud": [CLIENT, "other"]},
        {"azp": "other"},
        {"iss": "https://evil.example.org"},
        {"iss": None},
        {"exp": now - 61},
        {"exp": None},
        {"exp": "never"},
        {"nbf": now + 61 + 10},
        {"iat": now + 61 + 10},
        {"iat": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": {"a": 1}},
    ):
        provider.change = merging(changed)
        assert service.log_in().status_code == 403, changed
    provider.change = lambda claims: claims
    other = OidcProvider()
    foreign = other.key
    for name, forge in {
        "none": unsigned("none"),
        "None": unsigned("None"),
        "empty": lambda token: token.rpartition(".")[0] + ".",
        "two parts": lambda token: token.rpartition(".")[0],
        "five parts": lambda token: token + ".a.b",
        "text": lambda token: "x",
        "huge": lambda token: token + "A" * 20_000,
        "nested": lambda token: f"{encoded(json.loads('[' * 900 + ']' * 900))}.e30.AAAA",
        "HMAC": keyed(provider),
        "another type": unsigned("RS256"),
        "path": headed(provider, kid="../../../../dev/null"),
        "address": headed(provider, kid="http://127.0.0.1:1/", jku="http://127.0.0.1:1/"),
        "no kid": headed(provider, kid=""),
        "long kid": headed(provider, kid="a" * 300),
        "crit": headed(provider, crit=["b64"]),
        "own key": lambda token: jwt.encode(
            parts_of(token)[1], foreign, "ES256", {"kid": provider.kid, "jwk": other.keys[0]}
        ),
        "changed": lambda token: ".".join(
            [
                token.split(".")[0],
                encoded(parts_of(token)[1] | {"sub": "root"}),
                token.split(".")[2],
            ]
        ),
    }.items():
        provider.forge = forge
        found = service.log_in()
        assert found.status_code == 403, name
        assert SESSION not in service.cookies
    provider.forge = lambda token: token
    other._server.server_close()
    for fine in ({"aud": [CLIENT]}, {"aud": [CLIENT, "o"], "azp": CLIENT}, {"exp": now - 30}):
        provider.change = merging(fine)
        assert service.log_in().status_code == 303, fine


def test_without_a_login_in_the_configuration_the_addresses_of_the_login_are_missing() -> None:
    app = application(Context(list, Access))
    assert request(app, "GET", "/login").status_code == 404
    assert request(app, "GET", "/login/callback").status_code == 404
    assert request(app, "POST", "/logout").status_code == 303
    found = request(app, "GET", "/", {"Accept": "text/html"})
    assert found.status_code == 401 and urlsplit(found.header("location")).path == ""


def test_a_provider_that_does_not_answer_keeps_no_other_requests_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.service.login.fetch._TIMEOUT", (60.0, 60.0))
    engine = connect(f"sqlite:///{tmp_path}/jobs.sqlite")
    create_tables(engine)
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        issuer = f"http://127.0.0.1:{silent.getsockname()[1]}"
        token = Token("a", hashlib.sha256(b"secret").hexdigest(), frozenset({Verb.READ}))
        login = Login(Provider(issuer), CLIENT, SECRET)
        access = Access(Anonymous.NOTHING, (token,), url=URL, login=login)
        web = stack.enter_context(serve({}, access=lambda: access, database=engine))
        host, _, port = web.url.removeprefix("http://").partition(":")
        logins = []
        for _ in range(60):
            begun = stack.enter_context(socket.create_connection((host, int(port)), 60))
            begun.sendall(b"GET /login HTTP/1.1\r\nHost: x\r\n\r\n")
            logins.append(begun)
        refused: list[socket.socket] = []
        while len(refused) < 60 - 44:  # four ask the provider, and forty wait
            waiting = [each for each in logins if each not in refused]
            answered = select.select(waiting, [], [], 20)[0]
            assert answered
            for each in answered:
                assert b" 503 " in each.recv(65536)
            refused += answered
        assert web.get("/api/v1/identity", Authorization="Bearer secret").json()["name"] == "a"
        silent.close()
        for each in logins:
            assert each in refused or b" 503 " in each.recv(65536)
    engine.dispose()
