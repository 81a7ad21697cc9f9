"""Job tokens of forges, the keys of their issuers, and the trusted proxy."""

from __future__ import annotations

import ipaddress
import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

import pytest
from jwt.algorithms import RSAAlgorithm
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from publisher.service.access import Access, Anonymous
from publisher.service.login import keys as keys_module
from publisher.service.login.fetch import MAX_BYTES, ProviderUnavailable, fetch
from publisher.service.login.keys import RETRY_SECONDS, STALE_SECONDS, ProviderKeys
from publisher.service.login.signed import InvalidToken, verify
from publisher.service.projects import Member, Project
from publisher.service.providers import JobRule, JobTokens, Provider, Proxy, is_secure
from publisher.service.verbs import Role, Verb
from publisher.service.web.application import application
from publisher.service.web.clients import address_of
from publisher.service.web.context import Context
from publisher.service.web.guard import GuardedRoute
from tests.asgi import Answer, request
from tests.oidc_provider import OidcProvider

URL = "https://images.example.org"
SUBMIT = frozenset({Verb.SUBMIT})


@pytest.fixture(scope="module")
def issuer() -> Iterator[OidcProvider]:
    with OidcProvider() as found:
        yield found


def forge(issuer: OidcProvider) -> Access:
    rules = (
        JobRule("astro", {"project_path": "astro/images", "ref_protected": "true"}, SUBMIT),
        JobRule("astro", {"project_path": "astro/images"}, frozenset({Verb.READ})),
        JobRule("bio", {"project_path": "bio/images", "run": "7"}, SUBMIT),
    )
    tokens = JobTokens("gitlab", Provider(issuer.issuer), URL, rules)
    return Access(Anonymous.NOTHING, projects=(Project("astro"),), job_tokens=(tokens,))


def identity(access: Access, *headers: tuple[str, str], client: str = "192.0.2.1") -> Answer:
    app = application(Context(list, lambda: access))
    return request(app, "GET", "/api/v1/identity", headers, client=(client, 1))


def test_a_job_may_what_the_rules_for_its_claims_allow(issuer: OidcProvider) -> None:
    access = forge(issuer)
    app = application(Context(list, lambda: access))

    def grants(**claims: Any) -> Any:
        token = issuer.token(aud=URL, **claims)
        found = request(app, "GET", "/api/v1/identity", {"Authorization": f"bearer {token}"})
        assert found.status_code == 200, found.text
        assert found.json()["name"] == "gitlab:alice" and found.json()["means"] == "job"
        return {each["project"]: each["verbs"] for each in found.json()["grants"]}

    assert grants(project_path="astro/images") == {"astro": ["read"]}
    both = {"astro": ["read", "submit"]}
    assert grants(project_path="astro/images", ref_protected="true") == both
    assert grants(project_path="astro/images", ref_protected=True) == both
    assert grants(project_path="bio/images", run=7) == {"bio": ["submit"]}
    for other in ("astro/images2", "Astro/images", "x/astro/images", ["astro/images"], None):
        assert grants(project_path=other, ref_protected="true") == {}
    asked = len(issuer.asked)
    now = int(time.time())
    refused = [
        issuer.token(aud="https://other.example.org"),
        issuer.token(),
        issuer.token(aud=URL, exp=now - 61),
        issuer.token(aud=URL, nbf=now + 75),
        issuer.token(aud=URL, iss="https://gitlab.example.org"),
        issuer.token(aud=URL, sub=None),
        issuer.token({"kid": "../keys"}, aud=URL),
        issuer.token({"kid": issuer.issuer + "/other"}, aud=URL),
        issuer.token(aud=URL)[:-4] + "AAAA",
        issuer.token(aud=URL) + "." + "a",
        issuer.token(aud=URL, more="x" * 20_000),
        "a.b.c",
        "..",
    ]
    for token in refused:
        found = request(app, "GET", "/api/v1/identity", {"Authorization": f"Bearer {token}"})
        assert found.status_code == 401 and "invalid_token" in found.header("www-authenticate")
        assert token not in found.text
    assert len(issuer.asked) == asked  # no token makes the service request anything
    good = issuer.token(aud=URL, project_path="astro/images")
    for headers in (
        [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {good}")],
        [("Authorization", good)],
        [("Authorization", f"Basic {good}")],
        [("Authorization", f"Bearer {good}, Bearer {good}")],
    ):
        assert request(app, "GET", "/api/v1/identity", headers).status_code == 401
    found = request(app, "GET", f"/api/v1/identity?access_token={good}&token={good}")
    assert found.status_code == 400 and good not in found.text


def test_keys_are_requested_once_a_minute_at_most_and_old_ones_end(issuer: OidcProvider) -> None:
    moment = [1000.0]
    keys = ProviderKeys(Provider(issuer.issuer), lambda: moment[0])
    first = issuer.token(aud=URL)
    before = issuer.asked.count("/keys")
    for _ in range(3):
        assert verify(first, keys, URL)["sub"] == "alice"
    for number in range(50):
        with pytest.raises(InvalidToken, match="has no such key"):
            verify(issuer.token({"kid": f"unknown{number}"}, aud=URL), keys, URL)
    assert issuer.asked.count("/keys") == before + 1
    issuer.rotate("RS256")
    second = issuer.token(aud=URL)
    with pytest.raises(InvalidToken):  # the minute is not over
        verify(second, keys, URL)
    moment[0] += RETRY_SECONDS
    assert verify(second, keys, URL)
    with pytest.raises(InvalidToken):  # the provider has withdrawn its key
        verify(first, keys, URL)
    assert issuer.asked.count("/keys") == before + 2
    issuer.answers["/keys"] = 500, b"", {}
    moment[0] += STALE_SECONDS - 1
    assert verify(second, keys, URL)  # the provider is away
    moment[0] += 61
    with pytest.raises((InvalidToken, ProviderUnavailable)):
        verify(second, keys, URL)
    issuer.answers.clear()
    issuer.rotate()


def test_forged_tokens_hold_few_threads_while_an_issuer_does_not_answer(
    issuer: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, ended = threading.Event(), threading.Event()

    def silent(*arguments: Any) -> dict[str, Any]:
        read.set()
        ended.wait(60)
        return {"keys": issuer.keys}

    monkeypatch.setattr(keys_module, "fetch", silent)
    monkeypatch.setattr(keys_module, "_WAIT_SECONDS", 60.0)
    keys = ProviderKeys(Provider(issuer.issuer, jwks=f"{issuer.issuer}/keys"))
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(keys.find, f"forged{number}") for number in range(40)]
        try:
            refused = list(
                itertools.islice(as_completed(waiting, 60), 40 - keys_module._MOST_WAITING)
            )
            assert {type(each.exception()) for each in refused} == {ProviderUnavailable}
            assert read.is_set()
        finally:
            ended.set()
        rest = set(waiting) - set(refused)
        assert [each.result(60) for each in rest] == [None] * keys_module._MOST_WAITING
    assert keys.find(issuer.kid) is not None


def test_the_first_tokens_wait_for_the_keys_of_their_issuer(
    issuer: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = threading.Semaphore(0)

    def slow(*arguments: Any) -> dict[str, Any]:
        for _ in range(3):
            assert arrived.acquire(timeout=60)
        return {"keys": issuer.keys}

    class Lock:
        """Counts those that wait."""

        def __init__(self) -> None:
            self._lock = threading.Lock()
            self.release = self._lock.release

        def acquire(self, timeout: float) -> bool:
            arrived.release()
            return self._lock.acquire(timeout=timeout)

    monkeypatch.setattr(keys_module, "fetch", slow)
    keys = ProviderKeys(Provider(issuer.issuer, jwks=f"{issuer.issuer}/keys"))
    monkeypatch.setattr(keys, "_lock", Lock())
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(keys.find, [issuer.kid] * 3))
    assert None not in found


def test_only_public_keys_for_signatures_are_used(
    issuer: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.rotate("RS256")
    [good] = issuer.keys
    symmetric = {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}
    wrong: list[Any] = [
        symmetric | {"kid": good["kid"]},
        good | {"use": "enc"},
        good | {"kid": 7},
        good | {"n": "AQAB"},  # a weak key
        good | {"alg": "PS256"},  # the token has another algorithm
        {"kid": good["kid"], "kty": "RSA"},
        "text",
    ]
    for changed in wrong:
        issuer.keys = [changed]
        with pytest.raises(InvalidToken):
            verify(issuer.token(aud=URL), ProviderKeys(Provider(issuer.issuer)), URL)
    issuer.keys = [good | {"alg": "RS256"}]
    for jwks in ("", issuer.issuer + "/keys"):
        keys = ProviderKeys(Provider(issuer.issuer, jwks))
        assert verify(issuer.token(aud=URL), keys, URL)
    assert RSAAlgorithm.to_jwk(issuer.key.public_key(), as_dict=True)["n"] == good["n"]
    issuer.rotate()


def test_documents_of_providers_are_bounded_and_come_from_where_they_should(
    issuer: OidcProvider,
) -> None:
    place = "/.well-known/openid-configuration"
    for status, body, headers in (
        (200, b"[]", {}),
        (200, b"{", {}),
        (200, b"[" * 100_000, {}),
        (200, b" " * (MAX_BYTES + 1), {}),
        (302, b"", {"Location": issuer.issuer + "/keys"}),
        (404, b"{}", {}),
        (200, json.dumps({"issuer": "https://other.example.org"}).encode(), {}),
        (200, json.dumps({"issuer": issuer.issuer, "jwks_uri": "http://x.org/"}).encode(), {}),
        (200, json.dumps({"issuer": issuer.issuer, "jwks_uri": "file:///etc/x"}).encode(), {}),
        (200, json.dumps({"issuer": issuer.issuer, "jwks_uri": 7}).encode(), {}),
    ):
        issuer.answers[place] = status, body, headers
        with pytest.raises(ProviderUnavailable):
            ProviderKeys(Provider(issuer.issuer)).find("a")
    issuer.answers.clear()
    with pytest.raises(ProviderUnavailable):
        fetch("http://192.0.2.1/keys")
    with pytest.raises(ProviderUnavailable):
        fetch("https://127.0.0.1:1/keys")
    assert is_secure("https://x.org") and not is_secure("https://[x") and not is_secure("https:")
    # An unreachable issuer fails the requests with its tokens only.
    away = replace(forge(issuer).job_tokens[0], provider=Provider("http://127.0.0.1:1"))
    access = Access(Anonymous.PUBLISHED, job_tokens=(away,))
    token = issuer.token(aud=URL, iss="http://127.0.0.1:1")
    assert identity(access, ("Authorization", f"Bearer {token}")).status_code == 503
    assert identity(access).status_code == 200
    assert keys_module.MOST_KEYS == 100


PROXY_SECRET = "a secret of the proxy"


def test_users_are_stated_by_the_trusted_proxy_only() -> None:
    networks = tuple(ipaddress.ip_network(each) for each in ("10.0.0.0/24", "::1"))
    members = (Member(Role.EDITOR, group="staff"), Member(Role.VIEWER, user="alice"))
    proxy = Proxy(networks, PROXY_SECRET)
    access = Access(projects=(Project("astro", members),), url=URL, proxy=proxy)
    secret, user = ("X-Publisher-Proxy", PROXY_SECRET), ("X-Remote-User", "alice")
    for client in ("10.0.0.7", "::ffff:10.0.0.7", "::1"):
        found = identity(access, secret, user, ("X-Remote-Groups", "x, staff"), client=client)
        assert (found.json()["name"], found.json()["means"]) == ("alice", "user of the proxy")
        assert found.json()["grants"][0]["verbs"] == ["cancel", "read", "submit"]
    for client, headers in (
        ("192.0.2.1", [secret, user]),  # another address
        ("10.0.1.7", [secret, user]),
        ("", [secret, user]),
        ("10.0.0.7", [user]),  # no secret
        ("10.0.0.7", [secret]),  # no user
        ("10.0.0.7", [secret, ("X-Remote-User", "")]),
        ("10.0.0.7", [secret, ("X_Remote_User", "alice")]),
        ("192.0.2.1", [secret, user, ("X-Forwarded-For", "10.0.0.7")]),
    ):
        assert identity(access, *headers, client=client).json()["name"] == "", (client, headers)
    for headers in (
        [("X-Publisher-Proxy", "wrong"), user],
        [("X-Publisher-Proxy", PROXY_SECRET.upper()), user],
        [secret, secret, user],
        [secret, user, ("X-Remote-User", "root")],
        [secret, user, ("X-Remote-Groups", "a"), ("X-Remote-Groups", "staff")],
    ):
        found = identity(access, *headers, client="10.0.0.7")
        assert found.status_code == 401 and PROXY_SECRET not in found.text, headers
    assert PROXY_SECRET not in repr(access)


def test_a_user_of_the_proxy_changes_something_from_pages_only_and_has_an_address() -> None:
    proxy = Proxy((ipaddress.ip_network("10.0.0.7"),), PROXY_SECRET)
    members = (Member(Role.ADMIN, user="alice"),)
    access = Access(administrators=members, url=URL, proxy=proxy)

    async def write(request: Request) -> Response:
        return PlainTextResponse(address_of(request))

    app = application(
        Context(list, lambda: access), [GuardedRoute("/write", write, Verb.SUBMIT, "POST")]
    )
    secret, user = ("X-Publisher-Proxy", PROXY_SECRET), ("X-Remote-User", "alice")

    def ask(*headers: tuple[str, str]) -> Answer:
        return request(app, "POST", "/write", [secret, user, *headers], client=("10.0.0.7", 1))

    assert ask().status_code == 403
    from publisher.service.login.senders import Senders

    class Given:
        def getlist(self, key: str) -> list[str]:
            return [text for name, text in (secret, user) if name == key]

    csrf = Senders(lambda: access, lambda: None).sender(Given(), (), "10.0.0.7").csrf  # type: ignore[arg-type,return-value]
    token = ("X-CSRF-Token", csrf)
    assert ask(token, ("Origin", "https://evil.example.org")).status_code == 403
    for forwarded, address in (
        ([], "10.0.0.7"),
        ([("X-Forwarded-For", "198.51.100.1, 203.0.113.9")], "203.0.113.9"),
        ([("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "2001:db8::1")], "2001:db8::1"),
        ([("X-Forwarded-For", "<script>")], "10.0.0.7"),
    ):
        found = ask(token, ("Origin", URL), *forwarded)
        assert (found.status_code, found.text) == (200, address)
