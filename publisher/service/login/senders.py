"""The sender of a request, from its headers, cookies and address."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from publisher.lazy import dataclass
from publisher.service.access import (
    Access,
    Identity,
    Means,
    Unauthorized,
    anonymous,
    bearer,
    find_token,
    identity_with,
    unknown_token,
)
from publisher.service.login.keys import ProviderKeys
from publisher.service.login.sessions import Sessions
from publisher.service.login.signed import InvalidToken, is_signed_token, issuer_of, texts, verify
from publisher.service.login.tokens import PREFIX, Tokens
from publisher.service.projects import Person, grants_of
from publisher.service.providers import SECRET_HEADER, JobTokens, Provider, Proxy

COOKIE = "__Host-publisher-session"
"""Browsers accept a cookie with this prefix only with TLS, and from this host itself."""

_MOST_GROUPS = 1000


class Headers(Protocol):
    """The headers of a request."""

    def getlist(self, key: str) -> list[str]:
        """Return all values of a header."""


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender of a request.

    `csrf` is the text that a request which changes something has to contain, if browsers send what
    identifies the sender by themselves; "" if they do not. `is_proxied` is whether the trusted
    proxy has sent the request.
    """

    identity: Identity
    csrf: str = ""
    is_proxied: bool = False


class Senders:
    """Identifies senders. `access` returns what is in force, `now` is the clock.

    Without `sessions`, there is no login.
    """

    def __init__(
        self,
        access: Callable[[], Access],
        now: Callable[[], datetime],
        sessions: Sessions | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self._access = access
        self._now = now
        self.sessions = sessions
        self._tokens = tokens
        self._keys: dict[Provider, ProviderKeys] = {}

    def keys(self, provider: Provider) -> ProviderKeys:
        """Return the keys of a provider; those of an unchanged provider stay."""
        return self._keys.setdefault(provider, ProviderKeys(provider))

    def reads_database(self, headers: Headers, cookies: Sequence[str]) -> bool:
        """Return whether `sender` may read the database for this request."""
        given = headers.getlist("authorization")
        return (
            any(text.rpartition(" ")[2].startswith(PREFIX) for text in given)
            if given
            else bool(cookies)
        )

    def sender(self, headers: Headers, cookies: Sequence[str], address: str) -> Sender:
        """Return the sender of a request; may read the database and documents of providers.

        Args:
            headers: All headers.
            cookies: The values of the cookie COOKIE.
            address: The address of the other end of the connection.

        Raises:
            Unauthorized: The request has a token that is not valid, or is not that of the proxy.
            JobsUnavailable: The sessions cannot be read.
            ProviderUnavailable: The keys of an identity provider cannot be read.
        """
        access = self._access()
        given = headers.getlist("authorization")
        proxy = access.proxy
        is_proxied = proxy is not None and _is_proxy(proxy, headers, address)
        if given:
            return Sender(self._bearer(access, given), is_proxied=is_proxied)
        if proxy is not None and is_proxied:
            person = _stated(proxy, headers)
            if person is not None:
                secret = proxy.secret.encode()
                csrf = hmac.new(secret, f"csrf\0{person.name}".encode(), "sha256").hexdigest()
                return Sender(_identity(access, person, Means.PROXY), csrf, is_proxied=True)
        if self.sessions is not None and len(cookies) == 1:
            found = self.sessions.find(cookies[0], self._now())
            if found is not None:
                csrf = hmac.new(cookies[0].encode(), b"csrf", "sha256").hexdigest()
                return Sender(_identity(access, found, Means.SESSION), csrf, is_proxied)
        return Sender(anonymous(access), is_proxied=is_proxied)

    def _bearer(self, access: Access, headers: Sequence[str]) -> Identity:
        given = bearer(headers)
        identity = find_token(access, given, self._now())
        if identity is not None:
            return identity
        if self._tokens is not None and given.startswith(PREFIX):
            token = self._tokens.find(given, self._now())
            if token is not None:
                grants = token.grants(access)
                person = token.person
                return identity_with(access, token.name, grants, Means.TOKEN, token.id, person)
        if is_signed_token(given):
            issuer = issuer_of(given)
            for each in access.job_tokens:
                if each.provider.issuer == issuer:
                    return self._job(access, each, given)
        raise unknown_token()

    def _job(self, access: Access, tokens: JobTokens, token: str) -> Identity:
        try:
            claims = texts(verify(token, self.keys(tokens.provider), tokens.audience))
        except InvalidToken as error:
            raise Unauthorized(
                "cannot answer the request",
                why=f"the token of {tokens.name} is not accepted: {error.why}",
                hint=error.hint,
                is_invalid=True,
            ) from error
        name = f"{tokens.name}:{claims['sub']}"
        return identity_with(access, name, tokens.grants(claims), Means.JOB)


def _identity(access: Access, person: Person, means: Means) -> Identity:
    grants = grants_of(person, access.projects, access.administrators)
    return identity_with(access, person.name, grants, means, person=person)


def _is_proxy(proxy: Proxy, headers: Headers, address: str) -> bool:
    given = headers.getlist(SECRET_HEADER)
    if not proxy.is_at(address) or not given:
        return False
    if len(given) != 1 or not hmac.compare_digest(given[0].encode(), proxy.secret.encode()):
        raise _refused("the secret of the proxy is not that of the configuration")
    return True


def _stated(proxy: Proxy, headers: Headers) -> Person | None:
    """Return the user whom the proxy states; None if it states none."""
    users = headers.getlist(proxy.user)
    if not users or users == [""]:
        return None
    groups = headers.getlist(proxy.groups)
    if len(users) != 1 or len(groups) > 1 or not users[0].isprintable():
        raise _refused("the proxy states more than one user")
    names = [name.strip() for name in ",".join(groups).split(",")[:_MOST_GROUPS]]
    return Person(users[0], frozenset(filter(None, names)))


def _refused(why: str) -> Unauthorized:
    return Unauthorized(
        "cannot answer the request",
        why=why,
        hint="correct the configuration of the proxy, which has to remove these headers from "
        "the requests that it receives",
        is_invalid=True,
    )
