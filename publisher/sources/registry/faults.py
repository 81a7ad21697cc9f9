"""What went wrong with a request, in words that hold no secret, and how long to wait for better.

Exceptions of the HTTP libraries quote whole addresses, and an address may be signed (its query is
then a credential). So their texts are never passed on: only the system's or TLS's own words are.
"""

from __future__ import annotations

import datetime
import email.utils
import http.client
import random
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

import requests

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that say "not now". All others are answers."""

MAX_TRIES = 5
MAX_WAIT = 300.0
"""Seconds that we wait for a registry which tells us to; longer is an error that says so."""


_CUT = (http.client.IncompleteRead, http.client.NotConnected)


def describe(error: BaseException) -> str:
    """The innermost cause of a failed connection, without any address."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or 'handshake'}"
        if isinstance(cause, TimeoutError):
            return "no answer in time"
        if isinstance(cause, ConnectionResetError | BrokenPipeError):
            return "the connection was reset"
        if isinstance(cause, http.client.HTTPException) and not isinstance(cause, _CUT):
            return "its answer is not HTTP"
        if isinstance(cause, OSError) and cause.strerror and not _is_of_requests(cause):
            return cause.strerror
    name = type(error).__name__
    known = {
        "ReadTimeout": "no answer in time",
        "ReadTimeoutError": "no answer in time",
        "ConnectTimeout": "no connection in time",
        "ConnectTimeoutError": "no connection in time",
        "ProtocolError": "the connection broke",
        "IncompleteRead": "the connection broke",
        "ProxyError": "the proxy cannot be used",
        "InvalidURL": "its address is malformed",
        "LocationParseError": "its address is malformed",
        "InvalidProxyURL": "the proxy's address is not one",
    }
    return known.get(name, f"the connection failed ({name})")


def is_certificate_error(error: BaseException) -> bool:
    """Whether the other side's certificate was refused: trying again cannot help."""
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))


def is_not_tls(error: BaseException) -> bool:
    """Whether the other side answered a TLS greeting with something that is not TLS."""
    return any(
        isinstance(cause, ssl.SSLError)
        and cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it came from, however the libraries passed it on."""
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        item = pending.pop(0)
        if isinstance(item, BaseException) and id(item) not in seen:
            seen.add(id(item))
            yield item
            pending += [item.__cause__, item.__context__, getattr(item, "reason", None)]
            pending += item.args


def _is_of_requests(error: OSError) -> bool:
    return isinstance(error, requests.RequestException)


def retry_after(header: str | None, now: datetime.datetime) -> float | None:
    """Seconds that a Retry-After header asks for: it holds seconds, or a date."""
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return max(0.0, (when - now).total_seconds())


def backoff(tries: int, base: float) -> float:
    """Seconds before the next try: doubling, with jitter so that clients do not march in step."""
    return float(base * 2 ** (tries - 1) * random.uniform(0.5, 1.0))


def place(url: str) -> str:
    """Host and path of an address: what may be shown of it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed address"
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"
