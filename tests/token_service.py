"""A token service that a real docker-registry accepts (Docker registry token authentication)."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.components import TokenAuth, program, run
from tests.http_server import Received, http_server

ISSUER = "test issuer"


@contextmanager
def token_service(
    directory: Path,
    users: Mapping[str, str],
    *,
    lifetime: int = 300,
    announced: int | None = None,
) -> Iterator[TokenAuth]:
    """Serve tokens on a free loopback port.

    `users` (user -> password) may do everything, requests without a user may pull, and a wrong
    password is refused. Tokens live `lifetime` seconds; `announced` is the lifetime that the answer
    states, if it differs. (The registry allows for clocks that differ by 60 seconds.)
    """
    directory.mkdir(parents=True, exist_ok=True)
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    run(
        *(program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=test", "-keyout", key, "-out", certificate),
    )

    def respond(request: Received) -> None:
        user = _user(request.headers.get("Authorization", ""), users)
        if user is None:
            value: object = {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}
        else:
            query = parse_qs(urlsplit(request.path).query)
            claims = _claims(user, query.get("service", [""])[0], query.get("scope", []), lifetime)
            token = _signed(claims, key, certificate)
            value = {"token": token, "expires_in": announced or lifetime}
        status = 401 if user is None else 200
        request.answer(json.dumps(value).encode(), status, Content_Type="application/json")

    with http_server(respond) as url:
        yield TokenAuth(f"{url}/token", ISSUER, certificate)


def _user(authorization: str, users: Mapping[str, str]) -> str | None:
    """Return the user; "" for a request without one, None for a wrong user or password."""
    if not authorization:
        return ""
    user, _, password = base64.b64decode(authorization.split()[1]).decode().partition(":")
    return user if users.get(user) == password else None


def _claims(user: str, service: str, scopes: list[str], lifetime: int) -> dict[str, object]:
    access = []
    for scope in " ".join(scopes).split():
        kind, name, actions = scope.split(":", 2)
        allowed = [action for action in actions.split(",") if user or action == "pull"]
        access.append({"type": kind, "name": name, "actions": allowed})
    now = int(time.time())
    return {
        "iss": ISSUER,
        "sub": user,
        "aud": service,
        "exp": now + lifetime,
        "nbf": now - 5,
        "iat": now,
        "jti": str(time.time_ns()),
        "access": access,
    }


def _signed(claims: Mapping[str, object], key: Path, certificate: Path) -> str:
    """Return a JSON web token (RFC 7519), whose header has the certificate of its signer."""
    chain = "".join(certificate.read_text().splitlines()[1:-1])
    header = {"typ": "JWT", "alg": "RS256", "x5c": [chain]}
    text = f"{_base64(json.dumps(header).encode())}.{_base64(json.dumps(claims).encode())}"
    signature = subprocess.run(
        [program("openssl"), "dgst", "-sha256", "-sign", key],
        input=text.encode(),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    return f"{text}.{_base64(signature)}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
