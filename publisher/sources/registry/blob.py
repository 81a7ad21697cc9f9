"""One blob as a stream that does not break: continued by Range where the connection did."""

from __future__ import annotations

import logging
import re
from collections.abc import Generator, Iterator, Sequence

import requests

from publisher.errors import PublisherError
from publisher.oci.descriptor import Descriptor
from publisher.sources import SourceError
from publisher.sources.registry.body import BrokenBody, content_length, raw_chunks
from publisher.sources.registry.endpoint import Endpoint
from publisher.sources.registry.faults import MAX_TRIES, place

log = logging.getLogger(__name__)

PROGRESS = 1024 * 1024
"""Bytes after which a connection that broke has been of use, and tries are counted anew."""

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/(?:[0-9]{1,18}|\*)\Z")


def stream_blob(
    endpoints: Sequence[Endpoint], descriptor: Descriptor
) -> Generator[bytes, None, None]:
    """The chunks of a blob: exactly as many bytes as its descriptor says, or an error.

    The endpoints are asked in turn, and then the addresses in the descriptor, if it has any; what
    one has begun the next continues.
    """
    stream = _Stream(descriptor)
    own = [(endpoint, endpoint.blob_url(descriptor.digest), True) for endpoint in endpoints]
    foreign = [(endpoints[-1], url, False) for url in descriptor.urls]
    *others, last = own + foreign
    for endpoint, url, authorized in others:
        try:
            yield from stream.read(endpoint, url, authorized)
        except PublisherError as error:
            log.info("%s does not serve, asking the next place: %s", place(url), error)
        else:
            return
    yield from stream.read(*last)


class _Stream:
    """How far a blob has come, over any number of connections."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._digest = descriptor.digest
        self._size = descriptor.size
        self._position = 0
        self._ranges = True

    def read(self, endpoint: Endpoint, url: str, authorized: bool) -> Iterator[bytes]:
        """The rest of the blob from one address, over as many connections as it takes."""
        what = f"cannot fetch blob {self._digest} of {endpoint.name}"
        tries, mark = 0, self._position
        while True:
            if self._position - mark >= PROGRESS:
                tries, mark = 0, self._position
            tries += 1
            try:
                yield from self._connection(endpoint, url, authorized, what)
            except BrokenBody as broken:
                why = str(broken)
            else:
                why = "the answer ended early"
            if self._position == self._size:
                return
            so_far = f"after {self._position} of {self._size} bytes"
            log.debug("%s: %s: %s (try %d)", what, so_far, why, tries)
            if tries >= MAX_TRIES:
                raise SourceError(what, why=f"{so_far}: {why} (tried {tries} times)")
            endpoint.pause(tries)

    def _connection(
        self, endpoint: Endpoint, url: str, authorized: bool, what: str
    ) -> Iterator[bytes]:
        """What one connection gives; BrokenBody where it breaks."""
        resumed = self._position > 0 and self._ranges
        headers = {"Range": f"bytes={self._position}-"} if resumed else {}
        with endpoint.request("GET", url, headers, authorized=authorized) as response:
            skip = self._check_start(endpoint, response, what)
            for chunk in raw_chunks(response):
                new = chunk[skip:] if skip else chunk
                skip = max(0, skip - len(chunk))
                if self._position + len(new) > self._size:
                    raise SourceError(
                        what, why=f"it is longer than the {self._size} bytes that were announced"
                    )
                self._position += len(new)
                if new:
                    yield new

    def _check_start(self, endpoint: Endpoint, response: requests.Response, what: str) -> int:
        """How many bytes of the answer the consumer has already."""
        status = response.status_code
        if status == 416 and self._position and self._ranges:
            self._ranges = False
            raise BrokenBody("the range was refused")
        if status not in (200, 206):
            raise endpoint.refuse(what, response)
        begin = 0
        if status == 206:
            found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != self._position:
                self._ranges = False
                raise BrokenBody("another range came than was asked for")
            begin = self._position
        length = content_length(response)
        if length is not None and length != self._size - begin:
            raise SourceError(
                what,
                why=f"its length is {length + begin} bytes, the manifest says {self._size}",
            )
        return self._position - begin
