"""The bodies of requests: bounded JSON documents of known types."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from starlette.requests import Request

from publisher.errors import presentable
from publisher.service.web.problems import BadRequest, BodyTooLarge, WrongMediaType

MAX_BYTES = 64 * 1024
"""The largest body that is read."""

_MEDIA_TYPE = "application/json"
_SEE = "see /api/v1/openapi.json"
_PLACE = re.compile(r"(?P<why>.*?) - at `\$\.?(?P<name>[^`]*)`", re.DOTALL)
_T = TypeVar("_T", bound=msgspec.Struct)


async def read_body(request: Request, kind: type[_T]) -> _T:
    """Return the body of a request as a value of `kind`.

    Raises:
        WrongMediaType: The header Content-Type is not that of JSON.
        BodyTooLarge: The body has more than MAX_BYTES.
        BadRequest: The body is not JSON, or does not have this type.
    """
    stated = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if stated != _MEDIA_TYPE:
        raise WrongMediaType(
            "cannot read the body of the request",
            why=f"its Content-Type is {presentable(stated)!r}" if stated else "no Content-Type",
            hint=f"send JSON, and the header 'Content-Type: {_MEDIA_TYPE}'",
        )
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise BodyTooLarge(
                "cannot read the body of the request",
                why=f"it is larger than {MAX_BYTES} bytes",
                hint=_SEE,
            )
    try:
        return msgspec.json.decode(bytes(body), type=kind)
    except msgspec.ValidationError as error:
        found = _PLACE.fullmatch(str(error))
        raise BadRequest(
            "cannot use the body of the request",
            why=presentable(str(error)),
            hint=_SEE,
            parameter=presentable(found["name"]) if found else "",
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(
            "cannot read the body of the request",
            why=presentable(f"it is not JSON: {error}"),
            hint="send one JSON object in UTF-8",
        ) from error
