"""The bodies of requests: bounded in size and time; JSON documents of known types."""

from __future__ import annotations

import asyncio
import enum
import re
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from publisher.errors import presentable
from publisher.lazy import pattern
from publisher.service.web.problems import BadRequest, BodyTooLarge, BodyTooSlow, WrongMediaType

MAX_BYTES = 64 * 1024
"""The largest JSON document that is read."""

SECONDS = 10.0
"""How long a body may take to arrive."""

_MEDIA_TYPE = "application/json"
_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 50
_SEE = "see /api/v1/openapi.json"
_PLACE = pattern(r"(?P<why>.*?) - at `\$\.?(?P<name>[^`]*)`", re.DOTALL)
_T = TypeVar("_T", bound=msgspec.Struct)


async def read_bytes(request: Request, most: int, seconds: float = SECONDS) -> bytes:
    """Return the body of a request, whatever length it declares.

    Raises:
        WrongMediaType: It is compressed.
        BodyTooLarge: It has more than `most` bytes.
        BodyTooSlow: It does not arrive within `seconds`.
    """
    what = "cannot read the body of the request"
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise WrongMediaType(what, why="it is compressed", hint="send it without Content-Encoding")
    too_large = BodyTooLarge(what, why=f"it is larger than {most} bytes", hint="send a smaller one")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and (len(declared) > 12 or int(declared) > most):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_large
    except TimeoutError as error:
        why = f"it did not arrive within {seconds:g} seconds"
        raise BodyTooSlow(what, why=why, hint="send it again") from error
    return bytes(body)


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form; raise BadRequest, or an error as `read_body`."""
    body = await _read(request, _FORM)
    try:
        fields = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError as error:
        raise BadRequest(
            "cannot read the form", why="it is malformed", hint="open its page again"
        ) from error
    return dict(fields)


async def read_body(request: Request, kind: type[_T]) -> _T:
    """Return the body of a request as a value of `kind`.

    Raises:
        WrongMediaType: The header Content-Type is not that of JSON, or it is compressed.
        BodyTooLarge: The body has more than MAX_BYTES.
        BodyTooSlow: It does not arrive within SECONDS.
        BadRequest: The body is not JSON, or does not have this type.
    """
    body = await _read(request, _MEDIA_TYPE)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        found = _PLACE.fullmatch(str(error))
        name = found["name"] if found else ""
        known = _choices(kind, name)
        raise BadRequest(
            "cannot use the body of the request",
            why=presentable(str(error)) + (f"; known are {', '.join(known)}" if known else ""),
            hint=_SEE,
            parameter=presentable(name),
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(
            "cannot read the body of the request",
            why=presentable(f"it is not JSON: {error}"),
            hint="send one JSON object in UTF-8",
        ) from error


def _choices(kind: type[msgspec.Struct], name: str) -> list[str]:
    """Return the values that a field may have, if it has one of several."""
    for each in msgspec.structs.fields(kind):
        if each.encode_name == name and isinstance(each.type, enum.EnumType):
            return list(map(str, each.type))
    return []


async def _read(request: Request, media_type: str) -> bytes:
    stated = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if stated != media_type:
        raise WrongMediaType(
            "cannot read the body of the request",
            why=f"its Content-Type is {presentable(stated)!r}" if stated else "no Content-Type",
            hint=f"send the header 'Content-Type: {media_type}', and such a body",
        )
    return await read_bytes(request, MAX_BYTES)
