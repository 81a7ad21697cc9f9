"""A small OpenID Connect provider: real HTTP, real keys, authorization codes with PKCE.

    with OidcProvider() as provider:
        provider.user = {"sub": "alice", "groups": ["staff"]}

A request to its authorization endpoint is answered as if `user` had logged in there. Tokens for
jobs are made by `token`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

CLIENT, SECRET = "publisher", "secret of the client"


class OidcProvider:
    """The provider, in a thread.

    Attributes:
        user: The claims of the user who logs in.
        change: Changes the claims of the next tokens.
        forge: Returns another token in place of the one that is given.
        asked: The paths of all requests.
        keys: The document with its keys.
    """

    def __init__(self) -> None:
        self.user: dict[str, Any] = {"sub": "alice"}
        self.change: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
        self.forge: Callable[[str], str] = lambda token: token
        self.asked: list[str] = []
        self.answers: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.keys: list[dict[str, Any]] = []
        self._codes: dict[str, dict[str, str]] = {}
        self.key: Any = None
        self.algorithm = ""
        self.kid = ""
        handler = type("Handler", (_Handler,), {"provider": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.rotate()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def rotate(self, algorithm: str = "ES256") -> None:
        """Replace the key."""
        self.algorithm, self.kid = algorithm, secrets.token_hex(8)
        public: dict[str, Any]
        if algorithm == "ES256":
            self.key = ec.generate_private_key(ec.SECP256R1())
            public = ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        else:
            self.key = rsa.generate_private_key(65537, 2048)
            public = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        self.keys = [{**public, "kid": self.kid, "use": "sig"}]

    def claims(self, **more: Any) -> dict[str, Any]:
        """The claims of a token that is valid now; those that are None are left out."""
        now = int(time.time())
        found = {"iss": self.issuer, "iat": now, "exp": now + 300, "nbf": now, "sub": "alice"}
        return {name: value for name, value in (found | more).items() if value is not None}

    def token(self, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token with these claims, signed with the present key."""
        header = {"kid": self.kid} | (headers or {})
        return jwt.encode(self.claims(**claims), self.key, self.algorithm, header)

    def authorize(self, query: dict[str, str]) -> str:
        """Log the user in, and return where the browser goes."""
        assert query["response_type"] == "code" and query["client_id"] == CLIENT
        assert query["code_challenge_method"] == "S256" and "openid" in query["scope"].split()
        code = secrets.token_urlsafe(16)
        self._codes[code] = query
        answer = {"code": code, "state": query["state"], "iss": self.issuer}
        return f"{query['redirect_uri']}?{urlencode(answer)}"

    def redeem(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Return the tokens for a code, which is valid once."""
        pair = base64.b64encode(f"{CLIENT}:{SECRET.replace(' ', '+')}".encode()).decode()
        query = self._codes.pop(form.get("code", ""), None)
        if authorization != f"Basic {pair}" or query is None:
            return 400, {"error": "invalid_grant"}
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (challenge, form["redirect_uri"]) != (query["code_challenge"], query["redirect_uri"]):
            return 400, {"error": "invalid_grant"}
        claims = self.change({"aud": CLIENT, "nonce": query["nonce"], **self.user})
        return 200, {"id_token": self.forge(self.token(**claims)), "token_type": "Bearer"}


class _Handler(BaseHTTPRequestHandler):
    provider: OidcProvider

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        provider, parts = self.provider, urlsplit(self.path)
        provider.asked.append(parts.path)
        if parts.path in provider.answers:
            status, body, headers = provider.answers[parts.path]
            self._send(status, body, headers)
        elif parts.path == "/.well-known/openid-configuration":
            document = {"issuer": provider.issuer} | {
                name: f"{provider.issuer}/{path}"
                for name, path in (
                    ("authorization_endpoint", "authorize"),
                    ("token_endpoint", "token"),
                    ("jwks_uri", "keys"),
                )
            }
            self._send(200, json.dumps(document).encode(), {})
        elif parts.path == "/keys":
            self._send(200, json.dumps({"keys": provider.keys}).encode(), {})
        elif parts.path == "/authorize":
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self._send(302, b"", {"Location": provider.authorize(query)})
        else:
            self._send(404, b"", {})

    def do_POST(self) -> None:
        self.provider.asked.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        status, value = self.provider.redeem(form, self.headers.get("Authorization", ""))
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
