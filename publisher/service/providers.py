"""Identity providers, job tokens and the trusted proxy of the configuration, as values. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from publisher.lazy import dataclass
from publisher.service.projects import Grants
from publisher.service.verbs import Verb

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SESSION = timedelta(hours=8)
"""How long a session lasts by default."""
USER_CLAIM, GROUPS_CLAIM = "sub", "groups"
USER_HEADER, GROUPS_HEADER = "X-Remote-User", "X-Remote-Groups"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_secure(url: str) -> bool:
    """Return whether an address has TLS, or is on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (
        parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    )


@dataclass(frozen=True, slots=True)
class Provider:
    """An identity provider: its `issuer`, as its tokens name it.

    `jwks` is the address of its keys, "" for the one that its discovery document names. `ca` is the
    PEM file with the authority of its certificate, None for the usual ones.
    """

    issuer: str
    jwks: str = ""
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """The OpenID Connect provider at which people log in.

    Attributes:
        provider: The provider.
        client: The identifier of this service at the provider.
        secret: Its secret, "" for a public client.
        scopes: Requested beside `openid`.
        user: The claim with the name of a user, which the provider has to keep unique.
        groups: The claim with the groups of a user.
        session: How long a session lasts.
    """

    provider: Provider
    client: str
    secret: str = field(default="", repr=False)
    scopes: tuple[str, ...] = ()
    user: str = USER_CLAIM
    groups: str = GROUPS_CLAIM
    session: timedelta = SESSION


@dataclass(frozen=True, slots=True)
class JobRule:
    """What a job whose token has these claims may do in a project."""

    project: str
    claims: Mapping[str, str]
    allows: frozenset[Verb]


@dataclass(frozen=True, slots=True)
class JobTokens:
    """The tokens that jobs of a forge have: for the `audience`, and what they allow."""

    name: str
    provider: Provider
    audience: str
    rules: tuple[JobRule, ...]

    def grants(self, claims: Mapping[str, str]) -> Grants:
        """Return what a job with these claims may do, by project."""
        found: dict[str, frozenset[Verb]] = {}
        for rule in self.rules:
            if all(claims.get(name) == value for name, value in rule.claims.items()):
                found[rule.project] = found.get(rule.project, frozenset()) | rule.allows
        return found


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that has identified the user, and states the user in headers.

    It is trusted at `addresses` only, and only with the `secret`, which it sends in a header.
    """

    addresses: tuple[Network, ...]
    secret: str = field(repr=False)
    user: str = USER_HEADER
    groups: str = GROUPS_HEADER

    def is_at(self, address: str) -> bool:
        """Return whether a connection from this address may be that of the proxy."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in each for each in self.addresses)


SECRET_HEADER = "X-Publisher-Proxy"
"""The header in which the proxy sends its secret."""
