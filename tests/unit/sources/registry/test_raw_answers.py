"""Answers that no HTTP server should give: an error in words each, or what they hold, at once."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from publisher.errors import PublisherError
from publisher.oci.reference import parse_reference
from publisher.sources.open import Sources

OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
ODD_HEADERS = {
    "a length in another script": b"Content-Length: \xb2\r\n",
    "a length of thousands of digits": b"Content-Length: " + b"9" * 5000 + b"\r\n",
    "a name with a zero byte": b"X\0: y\r\n",
    "an encoding that is none": b"Content-Encoding: \xff\r\n",
    "a link to nowhere": b'Link: <http://[::1>; rel="next"\r\n',
    "a range of thousands of digits": b"Content-Range: bytes " + b"9" * 5000 + b"-1/2\r\n",
}
NOT_HTTP = {
    "bytes": b"\0\xff" * 1000,
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a page without a header": b"<html>",
    "a line without end": OK + b"X: " + b"a" * 200_000,
    "hundreds of headers": OK + b"".join(b"X%d: y\r\n" % n for n in range(500)) + b"\r\n{}",
    "a negative status": b"HTTP/1.1 -20 x\r\n\r\n",
    "an enormous status": b"HTTP/1.1 99999999999 x\r\n\r\n",
}


@contextmanager
def answering(data: bytes) -> Iterator[str]:
    """A server that answers whatever it is asked with `data`, and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.recv(65536)
                client.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/library/x:latest"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.parametrize("header", ODD_HEADERS.values(), ids=ODD_HEADERS)
def test_headers_of_any_kind_lead_to_an_error_in_our_words(sources: Sources, header: bytes) -> None:
    with answering(OK + header + b"\r\n{}") as name:
        source = sources.open(parse_reference(name))
        for ask in (source.resolve, source.manifest):
            with pytest.raises(PublisherError, match="cannot"):
                ask()
        with contextlib.suppress(PublisherError):
            assert list(source.tags()) == []


@pytest.mark.parametrize("data", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_not_http_is_called_so(sources: Sources, data: bytes) -> None:
    with answering(data) as name:
        source = sources.open(parse_reference(name))
        with pytest.raises(PublisherError, match=r"its answer is not HTTP|connection was reset"):
            source.resolve()


def test_a_partial_answer_with_a_range_that_is_no_number_is_not_used(sources: Sources) -> None:
    ranges = b"Content-Range: bytes " + b"9" * 5000 + b"-1/2\r\nContent-Length: 2\r\n\r\n{}"
    with answering(b"HTTP/1.1 206 Partial\r\n" + ranges) as name:
        with pytest.raises(PublisherError, match="status 206"):
            sources.open(parse_reference(name)).manifest()
