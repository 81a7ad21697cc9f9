"""Read one blob as a stream, which is resumed by a Range request if the connection fails."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence

from publisher.errors import PublisherError
from publisher.log_context import event
from publisher.oci.descriptor import Descriptor
from publisher.sources import SourceError
from publisher.sources.http.answer import Answer, BrokenBody
from publisher.sources.http.faults import place
from publisher.sources.http.retries import MAX_TRIES
from publisher.sources.registry.endpoint import Endpoint
from publisher.sources.registry.refusal import Refusal

log = logging.getLogger(__name__)

PROGRESS = 1024 * 1024
"""The number of received bytes after which the count of tries begins again."""


def stream_blob(
    endpoints: Sequence[Endpoint], descriptor: Descriptor
) -> Generator[bytes, None, None]:
    """Yield the chunks of a blob: exactly the number of bytes of its descriptor, or an error.

    The endpoints are tried in order, then the addresses in the descriptor. Each one continues at
    the position where the previous one failed.
    """
    stream = _Stream(descriptor)
    own = [(endpoint, endpoint.blob_url(descriptor.digest), True) for endpoint in endpoints]
    foreign = [(endpoints[-1], url, False) for url in descriptor.urls]
    *others, last = own + foreign
    for endpoint, url, authorized in others:
        try:
            yield from stream.read(endpoint, url, authorized)
        except PublisherError as error:
            data = event("retry", place=place(url), why=str(error))
            log.warning("%s failed, trying the next place: %s", place(url), error, extra=data)
        else:
            return
    yield from stream.read(*last)


class _Stream:
    """The position in a blob, over any number of connections."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._digest = descriptor.digest
        self._size = descriptor.size
        self._position = 0
        self._ranges = True

    def read(self, endpoint: Endpoint, url: str, authorized: bool) -> Iterator[bytes]:
        """Yield the rest of the blob from one address, with several connections if necessary."""
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
            data = event("retry", why=f"{what}: {so_far}: {why}", tries=tries)
            log.warning("%s: %s: %s (try %d)", what, so_far, why, tries, extra=data)
            if tries >= MAX_TRIES:
                raise SourceError(what, why=f"{so_far}: {why} (tried {tries} times)")
            endpoint.pause(tries, what, f"{so_far}: {why}")

    def _connection(
        self, endpoint: Endpoint, url: str, authorized: bool, what: str
    ) -> Iterator[bytes]:
        """Yield the bytes of one connection; raise BrokenBody if it fails."""
        is_resumed = self._position > 0 and self._ranges
        headers = {"Range": f"bytes={self._position}-"} if is_resumed else {}
        with endpoint.request("GET", url, headers, authorized=authorized) as answer:
            skip = self._known_bytes(answer, what)
            for chunk in answer.chunks():
                new = chunk[skip:] if skip else chunk
                skip = max(0, skip - len(chunk))
                if self._position + len(new) > self._size:
                    raise SourceError(
                        what, why=f"it is longer than the {self._size} bytes of its descriptor"
                    )
                self._position += len(new)
                if new:
                    yield new

    def _known_bytes(self, answer: Answer, what: str) -> int:
        """Return how many bytes at the beginning of an answer were received before."""
        if answer.status == 416 and self._position and self._ranges:
            self._ranges = False
            raise BrokenBody("the range was refused")
        if answer.status not in (200, 206):
            raise Refusal(what, answer)
        begin = 0
        if answer.status == 206:
            begin = self._position
            if answer.range_start != begin:
                self._ranges = False
                raise BrokenBody("the answer has another range than was requested")
        length = answer.content_length
        if length is not None and length != self._size - begin:
            raise SourceError(
                what, why=f"it has {length + begin} bytes; the manifest states {self._size}"
            )
        return self._position - begin
