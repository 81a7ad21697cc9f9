"""Answers that no HTTP server should give: an error in words each, or what they hold, at once."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from publisher.errors import PublisherError
from publisher.oci.digest import digest_of
from publisher.oci.media_types import OCI_MANIFEST
from publisher.oci.reference import parse_reference
from publisher.sources import SourceError
from publisher.sources.open import Sources
from tests.registry_images import fast_sources, sample_image

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
def answering(*answers: bytes) -> Iterator[str]:
    """A server that answers each connection with the next of `answers`, then with the last."""
    listener = socket.create_server(("127.0.0.1", 0))

    left = list(answers)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.recv(65536)
                client.sendall(left.pop(0) if len(left) > 1 else left[0])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/library/x:latest"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.parametrize("header", ODD_HEADERS.values(), ids=ODD_HEADERS)
def test_odd_headers_lead_to_an_error_of_the_program(sources: Sources, header: bytes) -> None:
    with answering(OK + header + b"\r\n{}") as name:
        source = sources.open(parse_reference(name))
        for ask in (source.resolve, source.manifest):
            with pytest.raises(PublisherError, match="cannot"):
                ask()
        with contextlib.suppress(PublisherError):
            assert list(source.tags()) == []


@pytest.mark.parametrize("data", NOT_HTTP.values(), ids=NOT_HTTP)
def test_an_answer_that_is_not_http_is_reported_as_such(sources: Sources, data: bytes) -> None:
    with answering(data) as name:
        source = sources.open(parse_reference(name))
        with pytest.raises(PublisherError, match=r"its answer is not HTTP|connection was reset"):
            source.resolve()


def test_a_partial_answer_with_a_malformed_range_is_not_used(sources: Sources) -> None:
    ranges = b"Content-Range: bytes " + b"9" * 5000 + b"-1/2\r\nContent-Length: 2\r\n\r\n{}"
    with answering(b"HTTP/1.1 206 Partial\r\n" + ranges) as name:
        with pytest.raises(PublisherError, match="status 206"):
            sources.open(parse_reference(name)).manifest()


def manifest_answer(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n"
        b"Docker-Content-Digest: %s\r\nConnection: close\r\n\r\n%s"
        % (OCI_MANIFEST.encode(), len(body), digest_of(body).encode(), body)
    )


def test_an_answer_that_ends_inside_its_header_is_tried_again_wherever_it_ends() -> None:
    body = sample_image().manifest.data
    whole = manifest_answer(body)
    for length in range(whole.index(b"\r\n\r\n") + 4):
        with fast_sources() as sources, answering(whole[:length], whole) as name:
            assert sources.open(parse_reference(name)).manifest().data == body, whole[:length]


@pytest.mark.parametrize("status", [100, 102, 103, 199])
def test_interim_answers_are_skipped(sources: Sources, status: int) -> None:
    body = sample_image().manifest.data
    interim = b"HTTP/1.1 %d Wait\r\nLink: </style.css>; rel=preload\r\n\r\n" % status
    with answering(interim * 2 + manifest_answer(body)) as name:
        source = sources.open(parse_reference(name))
        assert source.manifest().data == body
        assert source.resolve() == digest_of(body)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000,
        b"HTTP/1.1 103 Early Hints\r\n" + b"X: y\r\n" * 1000,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ],
)
def test_interim_answers_without_a_final_one_are_an_error(sources: Sources, data: bytes) -> None:
    with answering(data) as name:
        with pytest.raises(SourceError):
            sources.open(parse_reference(name)).manifest()


def test_a_trailer_that_does_not_end_is_an_error() -> None:
    """The standard library reads any number of lines, for which no time is limited."""
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    with fast_sources() as sources:
        with answering(head + b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 1000 + b"\r\n") as name:
            with pytest.raises(SourceError, match="its answer is not HTTP"):
                sources.open(parse_reference(name)).manifest()
        manifest = sample_image().manifest
        chunk = b"%x\r\n%b\r\n0\r\nX: y\r\n\r\n" % (len(manifest.data), manifest.data)
        kind = f"Content-Type: {OCI_MANIFEST}\r\n".encode()
        with answering(OK + kind + head.removeprefix(OK) + chunk) as name:
            assert sources.open(parse_reference(name)).manifest() == manifest


HEADERS = (
    "Retry-After",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "Content-Encoding",
    "Docker-Content-Digest",
    "Docker-Distribution-Api-Version",
    "Link",
    "Location",
    "WWW-Authenticate",
    "Transfer-Encoding",
    "Set-Cookie",
    "Connection",
)
VALUES = (
    "Mon, 01 Jan 2024 00:00:00 +99999999999999999",
    "9" * 5000,
    "-1",
    "1e400",
    "\xb2",
    "",
    ",;=<>\"'",
    "<http://[>; rel=next",
    "http://[::1/",
    "http://\xff/",
    "http://%E2%82%AC:x@127.0.0.1:1/",
    'Bearer realm="http://[::1/"',
    'Bearer realm="http://a:99999999999/",service="\xff"',
    "sha256:",
    "sha512:" + "0" * 64,
    "bytes 99999999999999999999-0/1",
    "a=b; expires=Mon, 01 Jan 99999 00:00:00 +9999999999999",
    "chunked, gzip",
)


@pytest.mark.parametrize(
    ("status", "header"),
    [(status, header) for status in (200, 206, 301, 401, 404) for header in HEADERS]
    + [(429, "Retry-After")],
)
def test_no_value_of_any_header_raises_another_error_than_a_publisher_error(
    status: int, header: str
) -> None:
    with fast_sources() as sources:
        for value in VALUES:
            head = f"HTTP/1.1 {status} X\r\nConnection: close\r\n{header}: {value}\r\n\r\n"
            with answering(head.encode("latin-1") + b"{}") as name:
                source = sources.open(parse_reference(name))
                with contextlib.suppress(PublisherError):
                    source.resolve()
                with contextlib.suppress(PublisherError):
                    source.manifest()
                with contextlib.suppress(PublisherError):
                    list(source.tags())
