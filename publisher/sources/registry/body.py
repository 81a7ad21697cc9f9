"""Reading the body of an answer: raw, piece by piece, and never without bounds."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Iterator

import requests
import urllib3.exceptions

from publisher.oci.document import MAX_DOCUMENT_BYTES
from publisher.sources import SourceError
from publisher.sources.registry.faults import describe, place

CHUNK = 256 * 1024
SLOW_AFTER = 120.0
"""Seconds of reading after which an answer must have come at SLOWEST or more."""
SLOWEST = 1024
"""Bytes per second; what comes slower counts as a broken connection."""


_LENGTH = re.compile(r"[0-9]{1,18}\Z")


class BrokenBody(Exception):
    """The connection broke, or crawled, before the body was whole. `str()` says how."""


def content_length(response: requests.Response) -> int | None:
    """Bytes of the body as the answer announces them; None where it does not, or in no number."""
    length = response.headers.get("Content-Length", "").strip()
    return int(length) if _LENGTH.match(length) else None


def raw_chunks(response: requests.Response) -> Iterator[bytes]:
    """The bytes of the body as they were sent, whatever Content-Encoding says.

    Digests are of these bytes, and registries exist that label a layer's own compression as the
    transfer's. Raises BrokenBody; the time that the consumer takes does not count as slowness.
    """
    spent, received = 0.0, 0
    while True:
        began = time.monotonic()
        try:
            chunk = response.raw.read1(CHUNK, decode_content=False)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise BrokenBody(describe(error)) from None
        spent += time.monotonic() - began
        received += len(chunk)
        if not chunk:
            return
        if spent > SLOW_AFTER and received < SLOWEST * spent:
            raise BrokenBody(f"only {received} bytes came in {spent:.0f} seconds")
        yield chunk


def read_document(response: requests.Response, what: str, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
    """A whole small body, with its Content-Encoding undone: no more than `limit` bytes.

    `what` says what cannot be done without it ("cannot fetch …"). Raises BrokenBody if the
    connection breaks, and SourceError if the body is too long.
    """
    declared = content_length(response)
    too_long = SourceError(
        what,
        why=f"the answer of {place(response.url)} is longer than {limit} bytes",
    )
    if declared is not None and declared > limit:
        raise too_long
    data = bytearray()
    for chunk in raw_chunks(response):
        data += chunk
        if len(data) > limit:
            raise too_long
    if declared is not None and len(data) != declared:
        raise BrokenBody(f"{len(data)} of {declared} bytes came")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return bytes(data)
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise SourceError(what, why=f"it came in the encoding {encoding!r}")
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        decoded = decoder.decompress(bytes(data), limit + 1)
    except zlib.error as error:
        raise SourceError(what, why=f"its {encoding} encoding is broken") from error
    if len(decoded) > limit:
        raise too_long
    if not decoder.eof:
        raise BrokenBody(f"its {encoding} encoding ends early")
    return decoded
