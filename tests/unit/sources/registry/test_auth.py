from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from publisher.errors import PublisherError
from publisher.sources import AuthenticationFailed, ImageNotFound
from publisher.sources.registry.auth import REMEMBERED
from publisher.sources.settings import RegistrySettings, Settings
from tests.registry import OwnRegistry, Reply, Request, error_reply
from tests.registry_auth import BasicAuth, BearerAuth, basic
from tests.registry_faults import cut, redirect
from tests.registry_images import (
    fast_sources,
    open_image,
    read_blob,
    sample_image,
    write_auths,
)

USERS = {"ann": "s3cret-of-ann"}


def logged_in(tmp_path: Path, auths: dict[str, tuple[str, str]]) -> Settings:
    return Settings(credential_files=(write_auths(tmp_path / "auth.json", auths),))


def test_a_token_is_fetched_without_credentials_where_none_are_known() -> None:
    with OwnRegistry(BearerAuth()) as registry, fast_sources() as sources:
        digest = registry.add("library/x", "latest", sample_image())
        assert open_image(sources, registry).resolve() == digest
        (asked,) = registry.seen("GET", "/token")
        assert asked.query["scope"] == ["repository:library/x:pull"]
        assert "authorization" not in asked.headers


def test_one_token_serves_all_requests_to_an_image_repository() -> None:
    with OwnRegistry(BearerAuth()) as registry, fast_sources() as sources:
        built = sample_image()
        registry.add("library/x", "latest", built)
        source = open_image(sources, registry)
        source.resolve()
        source.manifest()
        read_blob(source, built.layers[0].descriptor)
        assert registry.count("GET", "/token") == 1


def test_after_the_first_challenge_other_image_repositories_are_authorized_at_once() -> None:
    with OwnRegistry(BearerAuth()) as registry, fast_sources() as sources:
        for name in ("a", "b", "c"):
            registry.add(f"library/{name}", "latest", sample_image())
            open_image(sources, registry, f"library/{name}").resolve()
        assert registry.count("HEAD") == 4  # one of them refused
        assert registry.count("GET", "/token") == 3


@pytest.mark.parametrize(
    "auth", [BasicAuth(USERS), BearerAuth(USERS), BearerAuth(USERS, answer="access_token")]
)
def test_a_user_with_the_right_password_is_accepted(
    auth: BasicAuth | BearerAuth, tmp_path: Path
) -> None:
    with OwnRegistry(auth) as registry:
        settings = logged_in(tmp_path, {registry.host: ("ann", USERS["ann"])})
        digest = registry.add("library/x", "latest", sample_image())
        with fast_sources(settings) as sources:
            assert open_image(sources, registry).resolve() == digest


@pytest.mark.parametrize("auth", [BasicAuth(USERS), BearerAuth(USERS)])
def test_a_wrong_password_is_an_error_without_an_anonymous_retry(
    auth: BasicAuth | BearerAuth, tmp_path: Path
) -> None:
    with OwnRegistry(auth) as registry:
        settings = logged_in(tmp_path, {registry.host: ("ann", "wrong-pass")})
        registry.add("library/x", "latest", sample_image())
        with fast_sources(settings) as sources, pytest.raises(AuthenticationFailed) as caught:
            open_image(sources, registry).resolve()
        assert "refuses the user name and password" in str(caught.value)
        assert "ann" in str(caught.value)
        assert "wrong-pass" not in str(caught.value)
        assert "publisher login" in str(caught.value)
        assert caught.value.registry == registry.host
        sent = [r for r in registry.requests if "authorization" in r.headers]
        assert len(sent) == 1


@pytest.mark.parametrize("auth", [BasicAuth(USERS), BearerAuth(USERS)])
def test_a_wrong_password_is_not_sent_again_for_every_image(
    auth: BasicAuth | BearerAuth, tmp_path: Path
) -> None:
    """Registries lock accounts after some failed logins."""
    with OwnRegistry(auth) as registry:
        settings = logged_in(tmp_path, {registry.host: ("ann", "wrong-pass")})
        with fast_sources(settings) as sources:
            for number in range(20):
                with pytest.raises(AuthenticationFailed):
                    open_image(sources, registry, f"library/image-{number}").resolve()
        assert len([r for r in registry.requests if "authorization" in r.headers]) <= 2


def test_public_images_of_a_registry_with_private_ones_are_read_without_a_password() -> None:
    basic_auth = BasicAuth(USERS)
    with OwnRegistry() as registry, fast_sources() as sources:
        digest = registry.add("open/x", "latest", sample_image())
        registry.misbehave(
            lambda request, reply: basic_auth.check(registry, request) or reply, path="/closed/"
        )
        with pytest.raises(AuthenticationFailed):
            open_image(sources, registry, "closed/x").resolve()
        assert open_image(sources, registry, "open/x").resolve() == digest


@pytest.mark.parametrize("auth", [BasicAuth(USERS), BearerAuth(USERS)])
def test_a_private_image_is_not_reported_as_absent_without_credentials(
    auth: BasicAuth | BearerAuth,
) -> None:
    with OwnRegistry(auth) as registry, fast_sources() as sources:
        with pytest.raises(AuthenticationFailed, match="needs a login") as caught:
            open_image(sources, registry).resolve()
        assert not isinstance(caught.value, ImageNotFound)


def test_a_missing_image_of_a_registry_that_accepts_the_user_is_absent(tmp_path: Path) -> None:
    with OwnRegistry(BearerAuth(USERS)) as registry:
        settings = logged_in(tmp_path, {registry.host: ("ann", USERS["ann"])})
        with fast_sources(settings) as sources, pytest.raises(ImageNotFound):
            open_image(sources, registry).resolve()


def test_a_token_that_expired_is_renewed_once() -> None:
    auth = BearerAuth()
    with OwnRegistry(auth) as registry, fast_sources() as sources:
        digest = registry.add("library/x", "latest", sample_image())
        source = open_image(sources, registry)
        source.resolve()
        auth.expire()
        assert source.resolve() == digest
        assert registry.count("GET", "/token") == 2


def test_a_token_that_is_never_accepted_is_an_error_after_one_renewal() -> None:
    with OwnRegistry(BearerAuth(uses=0)) as registry, fast_sources() as sources:
        registry.add("library/x", "latest", sample_image())
        with pytest.raises(AuthenticationFailed):
            open_image(sources, registry).resolve()
        assert registry.count() == 3


def test_a_token_that_expires_within_a_blob_is_renewed_for_the_rest() -> None:
    with OwnRegistry(BearerAuth(uses=1)) as registry, fast_sources() as sources:
        built = sample_image(300_000)
        registry.add("library/x", "latest", built)
        registry.misbehave(cut(100_000), path="/blobs/", times=3)  # the second is the 401's turn
        layer = built.layers[0]
        assert read_blob(open_image(sources, registry), layer.descriptor) == layer.blob
        assert registry.count("GET", "/token") >= 2
        assert any("range" in request.headers for request in registry.seen("GET", "/blobs/"))


def test_an_identity_token_is_exchanged_and_never_sent_to_the_registry(tmp_path: Path) -> None:
    auth = BearerAuth({}, identity_tokens={"ann": "identity-of-ann"}, answer="access_token")
    with OwnRegistry(auth) as registry:
        file = tmp_path / "config.json"
        entry = {"auth": "PHRva2VuPjo=", "identitytoken": "identity-of-ann"}
        file.write_text(json.dumps({"auths": {registry.host: entry}}))
        digest = registry.add("library/x", "latest", sample_image())
        with fast_sources(Settings(credential_files=(file,))) as sources:
            assert open_image(sources, registry).resolve() == digest
        holders = [
            r for r in registry.requests if "identity-of-ann" in str(r.headers) + str(r.body)
        ]
        assert [(r.method, r.path) for r in holders] == [("POST", "/token")]


@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer realm="{realm}",service="{service}",scope="repository:library/x:pull,push"',
        "Bearer realm={realm}, service={service}, scope={scope}",
        'Basic realm="old", Bearer realm="{realm}",service="{service}",scope="{scope}"',
        'Negotiate, Bearer realm="{realm}"',
        'bearer REALM="{realm}" , Service="{service}"',
        'Bearer realm="{realm}",service="{service}",scope="{scope}",error="invalid_token"',
    ],
)
def test_challenges_of_every_form_are_answered(challenge: str) -> None:
    auth = BearerAuth(challenge=challenge)
    if "pull,push" in challenge:
        auth.check = lambda registry, request: (  # type: ignore[method-assign]
            None
            if auth.accepts(
                request.headers.get("authorization", "").removeprefix("Bearer "),
                "repository:library/x:pull,push",
            )
            else error_reply(401, "UNAUTHORIZED").with_headers(
                www_authenticate=challenge.format(
                    realm=f"{registry.url}/token", service="s", scope=""
                )
            )
        )
    with OwnRegistry(auth) as registry, fast_sources() as sources:
        digest = registry.add("library/x", "latest", sample_image())
        assert open_image(sources, registry).resolve() == digest


@pytest.mark.parametrize(
    "challenge", ["", "Negotiate", "Digest realm=x, nonce=y", ",,, =", "\x7f" * 50]
)
def test_a_challenge_that_cannot_be_answered_is_an_error(challenge: str) -> None:
    with OwnRegistry(BasicAuth(USERS, challenge)) as registry, fast_sources() as sources:
        with pytest.raises(AuthenticationFailed, match="unsupported kind"):
            open_image(sources, registry).resolve()


@pytest.mark.parametrize(
    ("challenge", "why"),
    [
        ('Bearer realm="http://[/"', "its address is malformed"),
        ('Bearer realm="http://x:99999/"', "its address is malformed"),
        ('Bearer realm="http://a..b/"', "its address is malformed"),
        ('Bearer realm="file:///etc/passwd"', "is not http or https"),
        ('Bearer realm="ftp://x/"', "is not http or https"),
        ('Bearer realm="///"', "is not http or https"),
        ("Bearer realm='{realm}'", "is not http or https"),
        ('Bearer realm=""', "unsupported kind of authentication: bearer "),
        ("X" * 9000 + " a=b," + ", Y" * 900, r"authentication: x{20}, y, y, y, y "),
    ],
)
def test_a_token_service_that_cannot_be_asked_is_an_error(challenge: str, why: str) -> None:
    with OwnRegistry(BearerAuth(challenge=challenge)) as registry, fast_sources() as sources:
        with pytest.raises(PublisherError, match=why):
            open_image(sources, registry).resolve()
        assert registry.count() == 1


def test_the_query_of_a_realm_is_kept_and_its_fragment_dropped() -> None:
    auth = BearerAuth(challenge='Bearer realm="{realm}?account=me#here",scope="{scope}"')
    with OwnRegistry(auth) as registry, fast_sources() as sources:
        digest = registry.add("library/x", "latest", sample_image())
        assert open_image(sources, registry).resolve() == digest
        (asked,) = registry.seen("GET", "/token")
        assert asked.query == {"account": ["me"], "scope": ["repository:library/x:pull"]}


@pytest.mark.parametrize(
    "expires", ["0", "-1e30", "1e400", "NaN", "Infinity", "9" * 400, '"x"', "[]", "null"]
)
def test_a_token_with_a_malformed_lifetime_is_used(
    expires: str,
) -> None:
    auth = BearerAuth()
    with OwnRegistry(auth) as registry, fast_sources() as sources:
        digest = registry.add("library/x", "latest", sample_image())

        def with_other_life(request: Request, reply: Reply) -> Reply:
            token = json.loads(reply.body)["token"]
            return replace(reply, body=f'{{"token": "{token}", "expires_in": {expires}}}'.encode())

        registry.misbehave(with_other_life, path="/token")
        source = open_image(sources, registry)
        assert source.resolve() == source.resolve() == digest
        assert registry.count("GET", "/token") == 1


def test_only_the_latest_tokens_of_many_image_repositories_are_kept() -> None:
    with OwnRegistry(BearerAuth()) as registry, fast_sources() as sources:
        built = sample_image()
        for number in range(REMEMBERED + 1):
            registry.add(f"library/x{number}", "latest", built)
            open_image(sources, registry, f"library/x{number}").resolve()
        assert registry.count("GET", "/token") == REMEMBERED + 1
        for number in (REMEMBERED, 1):
            open_image(sources, registry, f"library/x{number}").resolve()
        assert registry.count("GET", "/token") == REMEMBERED + 1
        open_image(sources, registry, "library/x0").resolve()
        assert registry.count("GET", "/token") == REMEMBERED + 2


def test_credentials_go_only_to_their_registry_and_the_token_service_it_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Registry B names A's token service as its own; both have credentials."""
    caplog.set_level(logging.DEBUG, logger="publisher")
    users_a, users_b = {"ann": "s3cret-of-ann"}, {"ben": "s3cret-of-ben"}
    auth_a = BearerAuth(users_a | users_b, name="token-a")
    with OwnRegistry(auth_a) as a:
        auth_b = BearerAuth(realm=f"{a.url}/token", issuer=auth_a)
        with OwnRegistry(auth_b) as b:
            settings = logged_in(
                tmp_path, {a.host: ("ann", users_a["ann"]), b.host: ("ben", users_b["ben"])}
            )
            built = sample_image()
            for registry in (a, b):
                registry.add("library/x", "latest", built)
            with fast_sources(settings) as sources:
                for registry in (a, b, a, b):
                    source = open_image(sources, registry)
                    source.manifest()
                    read_blob(source, built.layers[0].descriptor)
    to_a = [r.headers["authorization"] for r in a.requests if "authorization" in r.headers]
    to_b = [r.headers["authorization"] for r in b.requests if "authorization" in r.headers]
    ann, ben = basic("ann", users_a["ann"]), basic("ben", users_b["ben"])
    # Ben's password reaches A's token service, since B itself names it, and nothing else of A.
    for request in a.requests:
        if request.headers.get("authorization") == ben:
            assert request.path == "/token"
    assert to_a.count(ann) == 1
    assert to_a.count(ben) == 1
    assert ann not in to_b
    assert not any(value.startswith("Basic") for value in to_b)
    tokens = set(auth_a.issued)
    sent_to_a = {v.removeprefix("Bearer ") for v in to_a if v.startswith("Bearer")}
    sent_to_b = {v.removeprefix("Bearer ") for v in to_b}
    assert not sent_to_a & sent_to_b, "a token for one registry was shown to the other"
    for secret in (*users_a.values(), *users_b.values(), *tokens, ann, ben):
        assert secret not in caplog.text


def test_a_redirect_never_takes_the_authorization_along(tmp_path: Path) -> None:
    with OwnRegistry(BasicAuth(USERS)) as registry, OwnRegistry() as storage:
        built = sample_image()
        storage.add("library/x", "latest", built)
        registry.misbehave(
            lambda request, reply: (
                reply
                if reply.status == 401
                else redirect(storage.url + "{path}?X-Signature=signed")(request, reply)
            )
        )
        settings = logged_in(tmp_path, {registry.host: ("ann", USERS["ann"])})
        with fast_sources(settings) as sources:
            source = open_image(sources, registry)
            source.manifest()
            read_blob(source, built.layers[0].descriptor)
        assert storage.requests
        assert not [r for r in storage.requests if "authorization" in r.headers]


def test_a_password_is_not_sent_to_the_target_of_a_redirect_of_a_token_service(
    tmp_path: Path,
) -> None:
    with OwnRegistry(BearerAuth(USERS)) as registry, OwnRegistry(BearerAuth(USERS)) as other:
        registry.add("library/x", "latest", sample_image())
        registry.misbehave(redirect(other.url + "{path}"), path="/token")
        settings = logged_in(tmp_path, {registry.host: ("ann", USERS["ann"])})
        with fast_sources(settings) as sources, pytest.raises(PublisherError):
            open_image(sources, registry).resolve()
        assert other.requests
        assert not [r for r in other.requests if "authorization" in r.headers]


def test_no_secret_appears_in_errors_logs_or_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="publisher")
    echo = lambda request, reply: (  # noqa: E731
        error_reply(403, "DENIED", f"you sent {request.headers.get('authorization')}")
        if reply.status == 200 and request.path != "/token"
        else reply
    )
    texts = []
    auths: list[BasicAuth | BearerAuth] = [BasicAuth(USERS), BearerAuth(USERS)]
    for auth in auths:
        with OwnRegistry(auth) as registry:
            registry.add("library/x", "latest", sample_image())
            registry.misbehave(echo)
            settings = logged_in(tmp_path, {registry.host: ("ann", USERS["ann"])})
            settings = replace(
                settings, credentials=json.dumps({"auths": {"x": {"auth": "s3cret"}}})
            )
            texts.append(repr(settings))
            with fast_sources(settings) as sources:
                source = open_image(sources, registry)
                with pytest.raises(AuthenticationFailed) as caught:
                    source.manifest()
                texts.append(str(caught.value))
                texts.append(repr(caught.value))
    everything = caplog.text + "".join(texts)
    assert "DENIED" in everything
    for secret in (USERS["ann"], basic("ann", USERS["ann"]), "s3cret", "token-1-of"):
        assert secret not in everything


def test_credentials_are_not_sent_without_encryption_to_a_token_service() -> None:
    from publisher.sources.credentials.lookup import Credentials
    from publisher.sources.http.exchange import Exchange
    from publisher.sources.registry.auth import RegistryAuth, RepositoryAuth

    text = json.dumps({"auths": {"quay.example": {"auth": "YW5uOnMzY3JldA=="}}})
    with OwnRegistry(BearerAuth()) as service:
        challenge = f'Bearer realm="{service.url}/token"'
        for insecure in (False, True):
            settings = Settings(
                {"quay.example": RegistrySettings(insecure=insecure)}, credentials=text
            )
            exchange = Exchange(settings)
            auth = RegistryAuth("quay.example", False, exchange, Credentials(settings))
            with pytest.raises(AuthenticationFailed, match="refuses" if insecure else "HTTPS"):
                with OwnRegistry(BasicAuth({}, challenge)) as registry:
                    url = f"{registry.url}/v2/x/manifests/1"
                    deadline = exchange.deadline_after(60)
                    with RepositoryAuth(auth, "x").request("GET", url, deadline=deadline):
                        pass
            assert service.count() == int(insecure)


def test_a_token_service_that_refuses_one_image_repository_does_not_block_the_others(
    tmp_path: Path,
) -> None:
    with OwnRegistry(BearerAuth(USERS)) as registry:
        registry.misbehave(
            lambda request, reply: (
                error_reply(401, "UNAUTHORIZED") if "private" in request.target else reply
            ),
            path="/token",
        )
        settings = logged_in(tmp_path, {registry.host: ("ann", USERS["ann"])})
        with fast_sources(settings) as sources:
            for name in ("private/a", "library/x", "private/b", "library/y"):
                registry.add(name, "latest", sample_image())
                if name.startswith("private"):
                    with pytest.raises(AuthenticationFailed, match="refuses the user name"):
                        open_image(sources, registry, name).resolve()
                else:
                    assert open_image(sources, registry, name).resolve()
        checked = [r for r in registry.seen("GET", "/token") if "scope" not in r.query]
        assert len(checked) == 1, "the credential alone was checked once"


def test_the_hint_after_a_refusal_is_a_command_with_the_scheme_of_the_registry() -> None:
    with OwnRegistry(BasicAuth(USERS)) as registry, fast_sources() as sources:
        with pytest.raises(AuthenticationFailed) as caught:
            open_image(sources, registry).resolve()
    assert caught.value.hint.endswith(f": publisher login http://{registry.host}")


def test_the_hint_names_the_file_that_the_credentials_were_read_from(tmp_path: Path) -> None:
    for authfile, shown in (
        (tmp_path / "a b.json", f"'{tmp_path}/a b.json'"),
        (os.devnull, "FILE"),
    ):
        settings = Settings(credential_files=(Path(authfile),), authfile=Path(authfile))
        with OwnRegistry(BasicAuth(USERS)) as registry, fast_sources(settings) as sources:
            with pytest.raises(AuthenticationFailed) as caught:
                open_image(sources, registry).resolve()
        command = f": publisher login --authfile {shown} http://{registry.host}"
        assert caught.value.hint.endswith(command)
