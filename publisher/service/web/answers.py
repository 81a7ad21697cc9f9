"""Answers with an ETag: 304 if the client has the body already."""

from __future__ import annotations

import hashlib
import json

from starlette.requests import Request
from starlette.responses import Response

JSON = "application/json"
HTML = "text/html; charset=utf-8"


def encode(kind: str, value: dict[str, object]) -> bytes:
    """Return a document as JSON; `kind` names its schema and version, such as "list/1"."""
    text = json.dumps({"schema": f"publisher/{kind}", **value}, separators=(",", ":"))
    return text.encode() + b"\n"


def tag_of(body: bytes) -> str:
    """Return the ETag of a body."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def answer(request: Request, body: bytes, tag: str, media_type: str = JSON) -> Response:
    """Return a body, or 304 if the request names its ETag."""
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Authorization, Cookie"}
    known = request.headers.get("if-none-match", "")
    if known == "*" or tag in (each.strip().removeprefix("W/") for each in known.split(",")):
        return Response(b"", 304, headers)
    return Response(body, 200, headers | {"Content-Type": media_type})
