"""Answers with an ETag: 304 if the client has the body already; kept bodies are compressed once."""

from __future__ import annotations

import hashlib
import json

from isal import igzip
from starlette.requests import Request
from starlette.responses import Response

from publisher.lazy import dataclass

JSON = "application/json"
HTML = "text/html; charset=utf-8"

_LEAST = 1024
"""The smallest body that is compressed, in bytes."""


@dataclass(frozen=True, slots=True)
class Body:
    """The body of answers.

    `packed` is the same compressed by gzip, or b"" if it is too small. `tag` is "" for what is not
    an answer, but becomes the body of several.
    """

    data: bytes
    tag: str
    packed: bytes = b""

    @classmethod
    def of(cls, data: bytes) -> Body:
        """Return the body with its ETag."""
        return cls(data, tag_of(data))

    @classmethod
    def kept(cls, data: bytes) -> Body:
        """Return a body for many answers, which takes longer."""
        packed = igzip.compress(data, 1) if len(data) >= _LEAST else b""
        return cls(data, tag_of(data), packed)

    @property
    def packed_only(self) -> Body:
        """The body without the data if that is compressed: for clients that accept that."""
        return Body(b"", self.tag, self.packed) if self.packed else self

    @property
    def size(self) -> int:
        """The bytes that the body takes in memory."""
        return len(self.data) + len(self.packed)


def encode(kind: str, value: dict[str, object]) -> bytes:
    """Return a document as JSON; `kind` names its schema and version, such as "list/1"."""
    text = json.dumps({"schema": f"publisher/{kind}", **value}, separators=(",", ":"))
    return text.encode() + b"\n"


def tag_of(body: bytes) -> str:
    """Return the ETag of a body."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def answer(request: Request, body: Body, media_type: str = JSON) -> Response:
    """Return a body, or 304 if the request names its ETag."""
    is_packed = bool(body.packed) and accepts_gzip(request)
    # The compressed form is another representation, and so has another strong ETag.
    tag = f'{body.tag[:-1]}-gzip"' if is_packed else body.tag
    headers = {
        "ETag": tag,
        "Cache-Control": "no-cache",
        "Vary": "Accept-Encoding, Authorization, Cookie",
    }
    known = request.headers.get("if-none-match", "")
    if known == "*" or tag in (each.strip().removeprefix("W/") for each in known.split(",")):
        return Response(b"", 304, headers)
    headers["Content-Type"] = media_type
    if is_packed:
        headers["Content-Encoding"] = "gzip"
    return Response(body.packed if is_packed else body.data, 200, headers)


def accepts_gzip(request: Request) -> bool:
    """Return whether a request accepts gzip: RFC 9110, 12.5.3."""
    for each in request.headers.get("accept-encoding", "").lower().split(","):
        coding, _, quality = each.partition(";")
        if coding.strip() == "gzip":
            return quality.replace(" ", "").rstrip("0.") != "q="
    return False
