"""The ways in which the registry for tests misbehaves: each returns a change for `misbehave`."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import replace

from tests.registry import Change, Reply, Request, json_reply


def status(
    code: int, *, retry_after: str | None = None, body: bytes = b"", kind: str = "text/plain"
) -> Change:
    """Answer with a status without an error document."""
    headers = {"Content-Type": kind} | ({"Retry-After": retry_after} if retry_after else {})
    return lambda request, reply: Reply(code, headers, body)


def reset(after: int = 0) -> Change:
    """Reset the connection after `after` bytes of the body."""
    return lambda request, reply: replace(
        reply.with_headers(content_length=str(len(reply.body))), cut=after, reset=True
    )


def dropped() -> Change:
    """Close the connection without an answer."""

    def change(request: Request, reply: Reply) -> Reply:
        raise ConnectionAbortedError

    return change


def cut(after: int) -> Change:
    """Close the connection after `after` bytes of the body, without a reset."""
    return lambda request, reply: replace(
        reply.with_headers(content_length=str(len(reply.body))), cut=after
    )


def shorter(by: int = 1) -> Change:
    """Send a shorter body, with a matching Content-Length."""
    return lambda request, reply: replace(reply, body=reply.body[:-by])


def longer(by: int = 1) -> Change:
    """Send a longer body, with a matching Content-Length."""
    return lambda request, reply: replace(reply, body=reply.body + bytes(by))


def longer_unannounced(by: int = 1) -> Change:
    """Send a longer body, without a Content-Length."""
    return lambda request, reply: replace(reply, body=reply.body + bytes(by), chunked=True)


def endless() -> Change:
    """Send a body that never ends."""
    return lambda request, reply: replace(reply, endless=bytes(64 * 1024))


def corrupt(position: int = -1) -> Change:
    """Change one byte of the body."""

    def change(request: Request, reply: Reply) -> Reply:
        body = bytearray(reply.body)
        if body:
            body[position] ^= 0x20
        return replace(reply, body=bytes(body))

    return change


def slow(delay: float = 0.0, pause: float = 0.0, piece: int = 1024) -> Change:
    """Wait before the answer, and after each piece of it."""
    return lambda request, reply: replace(reply, delay=delay, pause=pause, piece=piece)


def held(until: threading.Event, then: Change | None = None) -> Change:
    """Answer only after `until` has been set: correctly, or as `then` does."""

    def change(request: Request, reply: Reply) -> Reply:
        assert until.wait(120), "the test does not release the answer"
        return then(request, reply) if then is not None else reply

    return change


def redirect(to: str, code: int = 307) -> Change:
    """Redirect; "{path}" in `to` is replaced by the requested path."""
    return lambda request, reply: Reply(code, {"Location": to.replace("{path}", request.path)})


def html(code: int = 200) -> Change:
    """Answer with a web page."""
    page = b"<!DOCTYPE html><html><title>Sign in</title></html>"
    return lambda request, reply: Reply(code, {"Content-Type": "text/html; charset=utf-8"}, page)


def without_digest() -> Change:
    """Omit the digest header."""
    return lambda request, reply: reply.with_headers(docker_content_digest=None)


def with_digest(digest: str) -> Change:
    """Send another digest in the header."""
    return lambda request, reply: reply.with_headers(docker_content_digest=digest)


def huge(size: int, *, announced: bool = True) -> Change:
    """Answer with a document of `size` bytes."""
    body = b'{"padding": "' + b"x" * (size - 15) + b'"}'
    return lambda request, reply: replace(reply, body=body, chunked=not announced)


def endless_tags() -> Change:
    """Name a next page on every page of tags, with new tags on each."""

    def change(request: Request, reply: Reply) -> Reply:
        number = int(request.query.get("last", ["0"])[0])
        page = json_reply(200, {"name": "x", "tags": [f"t{number}.{n}" for n in range(100)]})
        return page.with_headers(link=f'<{request.path}?last={number + 1}>; rel="next"')

    return change


class Unreliable:
    """Fail a share of all requests in random ways, the same for the same seed and request.

    No request fails more than `in_a_row` times in a row, so that a client that retries often enough
    always succeeds, in whichever order its threads run.
    """

    def __init__(self, share: float, seed: int = 0, in_a_row: int = 3) -> None:
        self._share = share
        self._seed = seed
        self._in_a_row = in_a_row
        self._lock = threading.Lock()
        self._tries: Counter[tuple[str, str]] = Counter()
        self._failed: Counter[tuple[str, str]] = Counter()
        self.failures = 0

    def __call__(self, request: Request, reply: Reply) -> Reply:
        key = (request.method, request.path)
        with self._lock:
            self._tries[key] += 1
            dice = random.Random(f"{self._seed} {key} {self._tries[key]}")
            if dice.random() >= self._share or self._failed[key] >= self._in_a_row:
                self._failed[key] = 0
                return reply
            self._failed[key] += 1
            self.failures += 1
        middle = dice.randrange(max(1, len(reply.body)))
        change = dice.choice(
            [
                status(500),
                status(502, body=b"<html>bad gateway</html>", kind="text/html"),
                status(503),
                status(503, retry_after="0"),
                status(429, retry_after="0"),
                status(408),
                reset(0),
                reset(middle),
                cut(middle),
            ]
        )
        return change(request, reply)
