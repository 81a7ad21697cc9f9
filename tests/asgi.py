"""Requests to an ASGI application in this process, without sockets: for tables of many requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

Headers = Mapping[str, str] | Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request; header names are in lower case."""

    status_code: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str:
        """The value of a header, "" without one."""
        return next((text for known, text in self.headers if known == name), "")

    def all(self, name: str) -> list[str]:
        """The values of all headers of this name."""
        return [text for known, text in self.headers if known == name]


def request(
    app: ASGIApp,
    method: str,
    target: str,
    headers: Headers = (),
    body: bytes = b"",
    client: tuple[str, int] = ("127.0.0.1", 1),
) -> Answer:
    """Send one request, and return the whole answer."""
    path, _, query = target.partition("?")
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), text.encode("latin-1")) for name, text in pairs],
        "client": client,
        "server": ("127.0.0.1", 80),
    }
    sent: list[Message] = []

    async def run() -> None:
        received: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return received.pop() if received else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        await app(scope, receive, send)

    asyncio.run(run())
    start = sent[0]
    found = tuple((name.decode().lower(), text.decode()) for name, text in start["headers"])
    return Answer(start["status"], found, b"".join(each.get("body", b"") for each in sent[1:]))
