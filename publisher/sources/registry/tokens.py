"""Tokens: requests to a token service, and its answers.

Sources: the token specification of the Docker registry, and its OAuth2 variant.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import field
from urllib.parse import urlencode

from publisher.lazy import dataclass
from publisher.sources import SourceError
from publisher.sources.credentials.lookup import Credential
from publisher.sources.http.answer import Answer, BrokenBody
from publisher.sources.registry.challenge import Challenge

MAX_TOKEN_ANSWER = 1024 * 1024
DEFAULT_LIFETIME = 60.0
"""The lifetime of a token in seconds if its service states none (token specification)."""
LONGEST_LIFETIME = 30 * 86400.0
"""The longest lifetime in seconds; longer ones, and those that are not positive, are ignored."""
MARGIN = 10.0
"""Seconds before the end of its lifetime at which a token is no longer used."""


@dataclass(frozen=True, slots=True)
class Token:
    """An Authorization header, and the time at which it is no longer used."""

    header: str = field(repr=False)
    good_until: float  # time.monotonic

    @property
    def is_good(self) -> bool:
        """Whether the token can still be used."""
        return time.monotonic() < self.good_until


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request to a token service."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    data: bytes | None = field(default=None, repr=False)

    @property
    def method(self) -> str:
        """POST for an identity token (OAuth2), else GET."""
        return "GET" if self.data is None else "POST"


def token_request(
    url: str, challenge: Challenge, scopes: tuple[str, ...], credential: Credential | None
) -> TokenRequest:
    """Return the request for a token that answers a challenge.

    Args:
        url: The address of the token service.
        challenge: The challenge, with the name of the registry at the service.
        scopes: The requested access; if empty, the service checks the credential only.
        credential: The credential to send; None for a token without a user.
    """
    headers = {"Accept": "application/json"}
    if credential is not None and credential.identity_token:
        form = [
            ("grant_type", "refresh_token"),
            ("client_id", "publisher"),
            ("service", challenge.service),
            ("scope", " ".join(scopes)),
            ("refresh_token", credential.identity_token),
        ]
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        return TokenRequest(url, headers, urlencode(form).encode())
    query = [("service", challenge.service)] if challenge.service else []
    query += [("scope", scope) for scope in scopes]
    if credential is not None:
        headers["Authorization"] = basic_header(credential)
        query.append(("account", credential.username))
    return TokenRequest(url + ("&" if "?" in url else "?") + urlencode(query), headers)


def parse_token(answer: Answer, what: str, began: float) -> Token:
    """Return the token in the answer to a request that was sent at `began` (time.monotonic)."""
    if answer.status != 200:
        raise SourceError(what, why=f"status {answer.status}")
    try:
        value = json.loads(answer.document(what, MAX_TOKEN_ANSWER))
    except BrokenBody as error:
        raise SourceError(what, why=str(error)) from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise SourceError(what, why="its answer is not a JSON object")
    token = value.get("token") or value.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise SourceError(what, why="its answer has no token")
    lifetime = value.get("expires_in")
    if not isinstance(lifetime, int | float) or not 0 < lifetime < LONGEST_LIFETIME:
        lifetime = DEFAULT_LIFETIME
    return Token(f"Bearer {token}", began + max(lifetime - MARGIN, lifetime / 2))


def basic_header(credential: Credential) -> str:
    """Return the Authorization header of HTTP's Basic authentication."""
    pair = f"{credential.username}:{credential.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
