"""Each live page shows the user, and errors of the login are pages that begin it again."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
import sqlalchemy as sa

from publisher.repository.directory.repository import DirectoryRepository
from publisher.service.access import Access, Anonymous, Token
from publisher.service.jobs.database import SESSIONS, connect, create_tables, digest
from publisher.service.jobs.store import StoredJobs
from publisher.service.projects import Member, Project
from publisher.service.providers import Login, Provider
from publisher.service.verbs import Role, Verb
from publisher.service.web.application import application
from publisher.service.web.context import Context, PublishedTree
from publisher.site.survey import Remembered
from publisher.tree.layout import RepositoryURL
from tests import asgi
from tests.command import succeed
from tests.layer_builder import file, image, layer, write_layout
from tests.oidc_provider import CLIENT, SECRET, OidcProvider

URL = "https://images.example.org"
INDEX = "/repositories/main/index.html"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(slots=True)
class Browser:
    """One browser: it keeps cookies, and accepts pages."""

    app: Any
    cookies: dict[str, str] = field(default_factory=dict)

    def send(self, target: str, method: str = "GET", body: bytes = b"", **more: str) -> asgi.Answer:
        headers = BROWSER | {name.replace("_", "-"): text for name, text in more.items()}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={text}" for name, text in self.cookies.items())
        found = asgi.request(self.app, method, target, headers | (FORM if body else {}), body)
        for cookie in found.all("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
            if "Max-Age=0" in cookie:
                del self.cookies[name]
        return found

    def page(self, target: str, status: int = 200) -> str:
        found = self.send(target)
        assert found.status_code == status, found.text
        assert found.header("content-type") == "text/html; charset=utf-8"
        return found.text

    def leave(self, path: str) -> str:
        """Begin a login that returns to `path`; return where the provider sends the browser."""
        begun = self.send(f"/login?{urlencode({'return': path})}")
        assert begun.status_code == 303, begun.text
        sent = requests.get(begun.header("location"), allow_redirects=False, timeout=10)
        return sent.headers["location"].removeprefix(URL)

    def log_in(self, path: str = INDEX) -> None:
        done = self.send(self.leave(path))
        assert (done.status_code, done.header("location")) == (303, path), done.text


@dataclass(slots=True)
class Service:
    """The service with one published image, and its provider."""

    provider: OidcProvider
    database: sa.Engine
    tree: Path
    anonymous: Anonymous = Anonymous.PUBLISHED
    issuer: str = ""
    app: Any = None

    def __post_init__(self) -> None:
        url = RepositoryURL("dir", str(self.tree))
        tree = PublishedTree("main", "Images", lambda: DirectoryRepository(url), Remembered)
        jobs = StoredJobs(self.database, 100)
        context = Context(lambda: [tree], self.access, jobs, database=self.database)
        self.app = application(context)

    def access(self) -> Access:
        login = Login(Provider(self.issuer or self.provider.issuer), CLIENT, SECRET)
        members = (
            Member(Role.EDITOR, user="alice"),
            Member(Role.EDITOR, user="carol"),
            Member(Role.VIEWER, user="bob"),
        )
        token = Token("dashboard", digest("secret"), frozenset({Verb.READ}))
        projects = (Project("astro", members),)
        return Access(self.anonymous, (token,), projects, url=URL, login=login)

    def browser(self, user: str = "") -> Browser:
        found = Browser(self.app)
        if user:
            self.provider.user = {"sub": user}
            found.log_in()
        return found


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    write_layout(image(layer(file("etc/motd", b"hello"))), root / "layout", "1")
    arguments = (f"oci:{root}/layout:1", "--name", "team/a", "--repository", root / "images")
    succeed("ingest-image", *arguments)
    return root / "images"


@pytest.fixture
def service(published: Path, tmp_path: Path) -> Iterator[Service]:
    database = connect(f"sqlite:///{tmp_path}/jobs.sqlite")
    create_tables(database)
    with OidcProvider() as provider:
        yield Service(provider, database, published)
    database.dispose()


def account(page: str) -> str:
    """What a page shows of the account."""
    [found] = re.findall(r'<(?:p|form) class="account".*?</(?:p|form)>', page)
    return unescape(found)


def csrf(page: str) -> str:
    return account(page).partition('name="csrf" value="')[2].partition('"')[0]


def test_each_live_page_shows_the_user_and_signs_in_and_out(service: Service) -> None:
    stranger, alice = service.browser(), service.browser("alice")
    for path in (INDEX, "/repositories/main/space.html", "/account"):
        target = "/" if path == "/account" else path
        link = f"/login?{urlencode({'return': target})}"
        assert f'<a href="{link}">Sign in</a>' in account(stranger.page(f"{path}?x=1"))
        shown = account(alice.page(path))
        assert ">alice</a>" in shown and ">Sign out</button>" in shown, path
    for path in ("/jobs?state=failed", "/jobs/none"):
        assert stranger.send(path).header("location") == f"/login?{urlencode({'return': path})}"
        shown = account(alice.page(path, 404 if path.endswith("none") else 200))
        assert ">alice</a>" in shown and ">Sign out</button>" in shown, path
    assert "editor" in alice.page("/account") and "astro" in alice.page("/account")
    # A token is not signed out.
    by_token = stranger.send(INDEX, Authorization="Bearer secret").text
    assert ">dashboard</a>" in account(by_token) and "Sign out" not in account(by_token)

    # With this policy, a browser states its origin with the forms of a page.
    found = alice.send(INDEX)
    assert found.header("referrer-policy") == "same-origin"
    assert '<meta name="referrer" content="same-origin">' in found.text

    session = dict(alice.cookies)
    body = urlencode({"csrf": csrf(alice.page(INDEX))}).encode()
    assert alice.send("/logout", "POST", b"csrf=other").status_code == 403
    left = alice.send("/logout", "POST", body)
    assert (left.status_code, left.header("location")) == (303, "/account")
    assert alice.cookies == {} and "Not signed in" in alice.page("/account")
    alice.cookies = session  # the session itself has ended
    assert "Sign in" in account(alice.page(INDEX))


def test_a_kept_page_of_one_sender_is_not_shown_to_another(service: Service) -> None:
    browsers = [service.browser(user) for user in ("", "alice", "bob", "carol")]
    first = [each.send(INDEX) for each in browsers]
    again = [each.send(INDEX) for each in browsers]
    assert [each.body for each in again] == [each.body for each in first]
    assert len({csrf(each.text) for each in first}) == 4
    tags = [each.header("etag") for each in first]
    assert len(set(tags)) == 4
    for number, browser in enumerate(browsers):
        statuses = [browser.send(INDEX, If_None_Match=tag).status_code for tag in tags]
        assert statuses == [304 if each == number else 200 for each in range(4)]
    assert "Cookie" in first[0].header("vary")
    # The links of a page are those that its sender may follow.
    assert ["/jobs" in each.text for each in first] == [False, True, True, True]
    assert ["/new-wish" in each.text for each in first] == [False, True, False, True]


def test_kept_pages_and_documents_are_sent_compressed_to_clients_that_accept_it(
    service: Service,
) -> None:
    stranger, alice = service.browser(), service.browser("alice")
    for browser, path in (
        (stranger, INDEX),
        (alice, INDEX),
        (stranger, "/api/v1/openapi.json"),
        (stranger, "/static/service.css"),
        (stranger, "/static/site.css"),
    ):
        plain = browser.send(path)
        assert plain.header("content-encoding") == "", path
        for accepted in ("gzip", "br, GZIP;q=0.5, *", "gzip; q=1.0"):
            found = browser.send(path, Accept_Encoding=accepted)
            assert found.header("content-encoding") == "gzip", (path, accepted)
            assert gzip.decompress(found.body) == plain.body
            assert "Accept-Encoding" in found.header("vary")
            assert found.header("etag") != plain.header("etag")
            tag = found.header("etag")
            for known in (tag, f"W/{tag}", f'"x", {tag}'):
                unchanged = browser.send(path, Accept_Encoding=accepted, If_None_Match=known)
                assert (unchanged.status_code, unchanged.body) == (304, b"")
        for refused in ("gzip;q=0", "gzip; q=0.000", "br", "identity", "gzipped"):
            assert browser.send(path, Accept_Encoding=refused).body == plain.body


def test_a_login_that_fails_is_a_page_that_begins_it_again(service: Service) -> None:
    again = f'href="/login?{urlencode({"return": INDEX})}">Sign in</a>'
    browser = service.browser()
    target = browser.leave(INDEX)
    path, _, query = target.partition("?")

    lost = service.browser().page(target, 403)  # another browser
    assert "the browser has begun no login" in lost and 'href="/login?return=%2F">' in lost
    other = browser.page(target.replace("state=", "state=x"), 403)
    assert "is one to another login" in other and again in unescape(other)
    refused = browser.page(f"{path}?{query}&error=access_denied", 403)
    assert "refuses the login (access_denied)" in refused and again in unescape(refused)
    odd = browser.page(f"{path}?{query}&error={'<script>'}", 403)
    assert "refuses the login" in odd and "<script>alert" not in odd
    assert browser.send(target).status_code == 303
    browser.cookies.clear()

    target = browser.leave(INDEX)
    code = re.sub("code=[^&]*", "code=unknown", target)
    stale = browser.page(code, 403)  # the provider does not accept the code
    assert "refuses the login" in stale and "client-secret-file" in stale

    service.issuer = "http://127.0.0.1:9"
    for away in (
        browser.page(f"/login?{urlencode({'return': INDEX})}", 503),
        browser.page(target, 403),
    ):
        assert "cannot" in away and again in unescape(away)
    found = service.browser().send("/login", Accept="application/json")
    assert found.header("content-type") == "application/problem+json"
    service.issuer = ""


def test_a_user_without_a_role_reads_what_helps_and_may_sign_out(service: Service) -> None:
    service.anonymous = Anonymous.NOTHING
    mallory = service.browser("mallory")
    for path in (INDEX, "/jobs"):
        page = mallory.page(path, 403)
        assert "mallory has no role that allows to" in page and "Sign out" in account(page)
        assert "ask an administrator of the service to add the user" in page
        assert "repositories/main" not in page  # nothing that it may not read
    assert "has no role in any project" in mallory.page("/account")
    found = mallory.send("/api/v1/jobs")  # for programs, whatever they accept
    assert (found.status_code, found.header("content-type")) == (403, "application/problem+json")
    missing = service.browser().page("/none", 404)
    assert "the service has no such URL" in missing and "repositories/main" not in missing


def test_an_expired_session_leads_to_the_login_and_back(service: Service) -> None:
    alice = service.browser("alice")
    with service.database.begin() as connection:
        past = int((datetime.now(UTC) - timedelta(days=1)).timestamp())
        connection.execute(sa.update(SESSIONS).values(expires=past))
    led = alice.send("/jobs?state=failed")
    assert led.header("location") == "/login?return=%2Fjobs%3Fstate%3Dfailed"
    alice.log_in("/jobs?state=failed")


def test_no_path_leads_to_what_is_kept_for_another_page(published: Path) -> None:
    """Without a name and a login, the parts of a page for one sender are empty."""
    url = RepositoryURL("dir", str(published))
    tree = PublishedTree("main", "Images", lambda: DirectoryRepository(url), Remembered)
    app = application(Context(lambda: [tree], lambda: Access(Anonymous.PUBLISHED)))
    assert asgi.request(app, "GET", INDEX).status_code == 200
    for spaces in range(1, 4):
        path = INDEX.replace("index", " " * spaces + "index")
        assert asgi.request(app, "GET", path).status_code == 404, spaces
