"""OpenID Connect: the authorization code flow, with PKCE, state and nonce.

Nothing is stored between the two requests of a login: state, nonce and the verifier of PKCE are
made of one random value, which only the browser that began the login has, as a cookie.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from publisher.errors import PublisherError
from publisher.lazy import dataclass, pattern
from publisher.service.login.fetch import ProviderUnavailable, fetch
from publisher.service.login.keys import ProviderKeys
from publisher.service.login.signed import InvalidToken, groups, texts, verify
from publisher.service.projects import Person
from publisher.service.providers import Login

CALLBACK = "/login/callback"
_LONGEST_PATH = 2048
_LONGEST_CODE = 4096
_REFUSALS = (400, 401, 403)
"""With which a provider answers that does not accept a code, or this client: RFC 6749, 5.2."""

_CODE = pattern(r"[a-z_]{1,40}")


class LoginFailed(PublisherError):
    """A login did not end well; the user may begin again."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login that has begun: a random value, and the path to return to."""

    random: str
    path: str

    @classmethod
    def begin(cls, path: str) -> Attempt:
        """Return a new one; a path that leads elsewhere is replaced by that of the first page."""
        return cls(secrets.token_urlsafe(32), path if is_local(path) else "/")

    @classmethod
    def parse(cls, cookie: str) -> Attempt | None:
        """Return the login of a cookie; None if it is malformed."""
        random, _, path = cookie.partition(".")
        try:
            text = base64.urlsafe_b64decode(path + "=" * (-len(path) % 4)).decode()
        except ValueError:
            return None
        if len(random) != 43 or not random.isascii():
            return None
        return cls(random, text if is_local(text) else "/")

    @property
    def cookie(self) -> str:
        """The value of the cookie, of characters that need no quotes there."""
        return f"{self.random}.{_encoded(self.path.encode())}"

    def part(self, name: str) -> str:
        """Return the state, the nonce or the verifier."""
        digest = hmac.digest(self.random.encode(), name.encode(), "sha256")
        return _encoded(digest)


def is_local(path: str) -> bool:
    """Return whether a path leads to a page of this service, however a browser reads it."""
    if not (path.startswith("/") and path.isascii() and path.isprintable()):
        return False
    if len(path) > _LONGEST_PATH or "\\" in path or path.startswith("//"):
        return False
    try:
        parts = urlsplit(path)
    except ValueError:
        return False
    return not (parts.scheme or parts.netloc)


def authorization_url(login: Login, keys: ProviderKeys, url: str, attempt: Attempt) -> str:
    """Return the address at the provider where the user logs in; raise ProviderUnavailable.

    `url` is the address of this service, as browsers know it.
    """
    challenge = _encoded(hashlib.sha256(attempt.part("verifier").encode()).digest())
    query = {
        "response_type": "code",
        "client_id": login.client,
        "redirect_uri": url + CALLBACK,
        "scope": " ".join(("openid", *login.scopes)),
        "state": attempt.part("state"),
        "nonce": attempt.part("nonce"),
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    address = keys.endpoint("authorization_endpoint")
    return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}"


def finish(
    login: Login,
    keys: ProviderKeys,
    url: str,
    attempt: Attempt | None,
    answer: dict[str, str],
) -> Person:
    """Return the user whom the provider has identified.

    Args:
        login: The configuration of the login.
        keys: The keys of its provider.
        url: The address of this service, as browsers know it.
        attempt: The login that the browser has begun.
        answer: The parameters with which the provider has sent it back.

    Raises:
        LoginFailed: The answer is not one to this login, or the provider refuses the login.
        ProviderUnavailable: The provider does not answer.
    """
    state = answer.get("state", "")
    if attempt is None:
        raise _failed(
            "the browser has begun no login, began it more than ten minutes ago, or does not keep "
            "the cookies of the service"
        )
    if not hmac.compare_digest(state.encode(), attempt.part("state").encode()):
        raise _failed("the answer of the identity provider is one to another login")
    if answer.get("iss", keys.provider.issuer) != keys.provider.issuer:
        raise _failed("the answer is one of another identity provider")
    if "error" in answer:
        raise _refused(answer["error"])
    code = answer.get("code", "")
    if not 0 < len(code) <= _LONGEST_CODE:
        raise _failed("the answer of the identity provider has no code")
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": url + CALLBACK,
        "client_id": login.client,
        "code_verifier": attempt.part("verifier"),
    }
    token = _redeemed(login, keys, form).get("id_token")
    try:
        claims = verify(token if isinstance(token, str) else "", keys, login.client)
    except InvalidToken as error:
        raise _failed(f"its token is not accepted: {error.why}") from error
    nonce = claims.get("nonce")
    expected = attempt.part("nonce")
    if not (isinstance(nonce, str) and hmac.compare_digest(nonce.encode(), expected.encode())):
        raise _failed("its token is not one for this login")
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else login.client) != login.client:
        raise _failed("its token is one for another client")
    stated = texts(claims)
    name = stated.get(login.user, "")
    if not name or not name.isprintable():
        raise _failed(f"its token has no claim {login.user} with the name of the user")
    return Person(name, groups(claims, login.groups), stated)


def _redeemed(login: Login, keys: ProviderKeys, form: dict[str, str]) -> dict[str, Any]:
    """Return what the provider gives for a code."""
    authorization = ""
    if login.secret:
        pair = f"{quote_plus(login.client)}:{quote_plus(login.secret)}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    endpoint = keys.endpoint("token_endpoint")
    try:
        return fetch(endpoint, keys.provider.ca, form, authorization)
    except ProviderUnavailable as error:
        if error.status in _REFUSALS:
            raise _refused("") from error
        raise


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _failed(why: str) -> LoginFailed:
    return LoginFailed("cannot log in", why=why, hint="begin again: /login")


def _refused(code: str) -> LoginFailed:
    """Return the error of a provider that refuses; `code` is the reason that it states, or ""."""
    reason = f" ({code})" if _CODE.fullmatch(code) else ""
    return LoginFailed(
        "cannot log in",
        why=f"the identity provider refuses the login{reason}",
        hint="begin again: /login; if it is refused again, its log and the keys client and "
        "client-secret-file in the configuration of the service show why",
    )
