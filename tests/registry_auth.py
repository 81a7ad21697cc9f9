"""Access control of the registry for tests: Basic, and Bearer with a token service."""

from __future__ import annotations

import base64
import itertools
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from tests.registry import OwnRegistry, Reply, Request, error_reply, json_reply


def basic(user: str, password: str) -> str:
    """Return the value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class BasicAuth:
    """Basic authentication."""

    def __init__(self, users: Mapping[str, str], challenge: str = 'Basic realm="own"') -> None:
        self._allowed = {basic(*pair) for pair in users.items()}
        self._challenge = challenge

    def check(self, registry: OwnRegistry, request: Request) -> Reply | None:
        if request.headers.get("authorization") in self._allowed:
            return None
        return error_reply(401, "UNAUTHORIZED").with_headers(www_authenticate=self._challenge)

    def serve(self, registry: OwnRegistry, request: Request) -> Reply | None:
        return None


@dataclass(slots=True)
class _Issued:
    scopes: tuple[str, ...]
    until: float
    uses: int


class BearerAuth:
    """Tokens, and the service (at /token) that issues them.

    A token lives `lifetime` seconds and for `uses` requests. `realm` is the address of another
    token service; `issuer` is then the one whose tokens are accepted. `challenge` is the
    WWW-Authenticate header, in which {realm}, {service} and {scope} are replaced by their values.
    """

    def __init__(
        self,
        users: Mapping[str, str] | None = None,
        *,
        identity_tokens: Mapping[str, str] | None = None,
        lifetime: float = 300.0,
        uses: int = 1_000_000,
        realm: str = "",
        issuer: BearerAuth | None = None,
        service: str = "own-registry",
        challenge: str = 'Bearer realm="{realm}",service="{service}",scope="{scope}"',
        name: str = "token",
        answer: str = "token",
    ) -> None:
        self._users = users
        self._identity_tokens = identity_tokens or {}
        self._lifetime = lifetime
        self._uses = uses
        self._realm = realm
        self._issuer = issuer or self
        self._service = service
        self._challenge = challenge
        self._name = name
        self._answer = answer
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._issued: dict[str, _Issued] = {}

    @property
    def issued(self) -> list[str]:
        """Every issued token."""
        return list(self._issued)

    def expire(self) -> None:
        """Refuse all issued tokens from now on."""
        with self._lock:
            for token in self._issued.values():
                token.until = 0.0

    def check(self, registry: OwnRegistry, request: Request) -> Reply | None:
        parts = request.path.removeprefix("/v2/").split("/")
        kinds = [n for n, part in enumerate(parts) if part in ("manifests", "blobs", "tags")]
        name = "/".join(parts[: kinds[-1]]) if kinds else ""
        scope = f"repository:{name}:pull" if name else ""
        sent = request.headers.get("authorization", "")
        if self._issuer.accepts(sent.removeprefix("Bearer "), scope):
            return None
        challenge = self._challenge.format(
            realm=self._realm or f"{registry.url}/token", service=self._service, scope=scope
        )
        return error_reply(401, "UNAUTHORIZED").with_headers(www_authenticate=challenge)

    def accepts(self, token: str, scope: str) -> bool:
        with self._lock:
            found = self._issued.get(token)
            if found is None or time.monotonic() >= found.until or found.uses <= 0:
                return False
            if scope and scope not in found.scopes:
                return False
            found.uses -= 1
            return True

    def serve(self, registry: OwnRegistry, request: Request) -> Reply | None:
        if request.path != "/token":
            return None
        query = request.query
        if request.method == "POST":
            query = parse_qs(request.body.decode())
            token = query.get("refresh_token", [""])[0]
            allowed = token in self._identity_tokens.values()
        elif self._users is not None:
            sent = request.headers.get("authorization", "")
            allowed = sent in {basic(*pair) for pair in self._users.items()}
        else:
            allowed = "authorization" not in request.headers
        if not allowed:
            return json_reply(401, {"details": "incorrect username or password"})
        scopes = tuple(s for value in query.get("scope", []) for s in value.split())
        with self._lock:
            token = f"{self._name}-{next(self._numbers)}-of-{registry.host}"
            self._issued[token] = _Issued(scopes, time.monotonic() + self._lifetime, self._uses)
        return json_reply(200, {self._answer: token, "expires_in": self._lifetime})
