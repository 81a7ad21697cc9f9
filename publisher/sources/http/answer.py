"""The answer to one request, with parsed headers and a body of limited size.

All headers that the program uses are parsed here. An invalid value counts as absent.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import zlib
from collections.abc import Iterator
from urllib.parse import urlsplit

import urllib3.exceptions
from urllib3 import BaseHTTPResponse

from publisher.lazy import pattern
from publisher.oci.document import MAX_DOCUMENT_BYTES
from publisher.sources import SourceError
from publisher.sources.http.deadline import Deadline
from publisher.sources.http.faults import describe, place

CHUNK = 256 * 1024
DRAIN = 64 * 1024
"""The most bytes of an unused body that are read to use its connection again."""

_LENGTH = pattern(r"[0-9]{1,18}\Z")
_CONTENT_RANGE = pattern(r"bytes ([0-9]{1,18})-[0-9]{1,18}/(?:[0-9]{1,18}|\*)\Z")


class BrokenBody(Exception):
    """The connection failed, or was too slow, before the end of the body; `str()` is the cause."""


class Answer:
    """The final answer to a request, after redirects. Its body can be read once.

    `status` is the HTTP status, `url` the address that answered, `sent_authorization` the header of
    the request, or "". The body is valid within the `with` of `Exchange.request`.
    """

    def __init__(
        self,
        response: BaseHTTPResponse,
        deadline: Deadline,
        method: str,
        url: str,
        sent_authorization: str,
    ) -> None:
        self._response = response
        self._deadline = deadline
        self._method = method
        self.status = response.status
        self.url = url
        self.sent_authorization = sent_authorization

    def header(self, name: str) -> str:
        """Return a header's value, or "" if the answer does not have it."""
        return str(self._response.headers.get(name, "")).strip()

    @property
    def place(self) -> str:
        """Host and path of the address, for messages."""
        return place(self.url)

    @property
    def content_length(self) -> int | None:
        """The announced size of the body in bytes."""
        length = self.header("Content-Length")
        return int(length) if _LENGTH.match(length) else None

    @property
    def range_start(self) -> int | None:
        """The position of the first byte of a partial body (RFC 9110 section 14.4)."""
        found = _CONTENT_RANGE.match(self.header("Content-Range"))
        return int(found[1]) if found else None

    @property
    def is_web_page(self) -> bool:
        """Whether the body is HTML, such as from proxies and login forms."""
        return "text/html" in self.header("Content-Type").lower()

    @property
    def location(self) -> str:
        """The target of a redirect, or the address of an upload, or ""."""
        return self.header("Location")

    @property
    def next_page(self) -> str:
        """The address of the next page of a list (RFC 8288), or "" for the last one."""
        from requests.utils import parse_header_links  # long to load; few lists have pages

        links = parse_header_links(self.header("Link"))
        return next((link["url"] for link in links if link.get("rel") == "next"), "")

    def retry_after(self, now: datetime.datetime) -> float | None:
        """Return the seconds to wait that a Retry-After header requests."""
        return parse_retry_after(self.header("Retry-After"), now)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it was sent, ignoring Content-Encoding.

        Digests are those of the sent bytes, and some registries declare the compression of a layer
        as Content-Encoding. Raises BrokenBody, and OutOfTime after the deadline.
        """
        while True:
            self._deadline.check(f"cannot fetch {self.place}", "its answer arrives too slowly")
            try:
                with self._deadline.waiting():
                    chunk = self._response.read1(CHUNK, decode_content=False)
            except (OSError, urllib3.exceptions.HTTPError) as error:
                raise BrokenBody(describe(error)) from None
            if not chunk:
                return
            self._deadline.received(len(chunk))
            yield chunk

    def document(self, what: str, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
        """Return the whole body after decoding its Content-Encoding.

        Args:
            what: The `what` of errors ("cannot fetch …").
            limit: The most bytes of the body, before and after decoding.

        Raises:
            BrokenBody: The connection fails, or is too slow.
            SourceError: The body is longer than `limit`, or its encoding is not supported.
        """
        data = self._raw_document(what, limit)
        encoding = (self.header("Content-Encoding") or "identity").lower()
        if encoding == "identity":
            return data
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise SourceError(what, why=f"its encoding {encoding!r} is not supported")
        decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        try:
            decoded = decoder.decompress(data, limit + 1)
        except zlib.error as error:
            raise SourceError(what, why=f"its {encoding} encoding is corrupt") from error
        if len(decoded) > limit:
            raise self._too_long(what, limit)
        if not decoder.eof:
            raise BrokenBody(f"its {encoding} encoding ends early")
        return decoded

    def _raw_document(self, what: str, limit: int) -> bytes:
        declared = self.content_length
        if declared is not None and declared > limit:
            raise self._too_long(what, limit)
        data = bytearray()
        for chunk in self.chunks():
            data += chunk
            if len(data) > limit:
                raise self._too_long(what, limit)
        if declared is not None and len(data) != declared:
            raise BrokenBody(f"{len(data)} of {declared} bytes arrived")
        return bytes(data)

    def _too_long(self, what: str, limit: int) -> SourceError:
        return SourceError(what, why=f"the answer of {self.place} is longer than {limit} bytes")

    def close(self) -> None:
        """Release the connection. It is used again if the rest of the body is short."""
        if self._is_short() and self._deadline.left > 0:
            # If this fails, the connection is closed, and the next request opens another one.
            with (
                contextlib.suppress(OSError, urllib3.exceptions.HTTPError),
                self._deadline.waiting(),
            ):
                self._response.read1(DRAIN, decode_content=False)
        self._response.close()
        self._response.release_conn()

    def _is_short(self) -> bool:
        length = self.content_length
        return self._method == "HEAD" or (length is not None and length <= DRAIN)


def parse_retry_after(header: str, now: datetime.datetime) -> float | None:
    """Return the seconds in a Retry-After header: a number or a date (RFC 9110 section 10.2.3)."""
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = email.utils.parsedate_to_datetime(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=datetime.UTC)
        return max(0.0, (when - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def same_origin(one: str, other: str) -> bool:
    """Return whether two addresses have the same scheme, host and port."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port
