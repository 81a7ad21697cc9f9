"""Clients that send nothing, or read nothing, do not keep their connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router
from uvicorn.protocols.http.h11_impl import H11Protocol

from publisher.service.web.connections import bounded

REQUEST = b"GET /small HTTP/1.1\r\nHost: test\r\n\r\n"
LARGE = 64 * 1024 * 1024


async def small(request: Request) -> Response:
    return Response(b"small")


async def large(request: Request) -> Response:
    return Response(bytes(LARGE))


@contextmanager
def server(protocol: type[H11Protocol]) -> Iterator[tuple[str, int]]:
    listening = socket.create_server(("127.0.0.1", 0))
    routes = Router()
    routes.add_route("/small", small)
    routes.add_route("/large", large)
    running = uvicorn.Server(uvicorn.Config(routes, http=protocol, log_config=None, lifespan="off"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()
    finally:
        running.should_exit = True
        thread.join()
        listening.close()


def ended(client: socket.socket) -> bool:
    """Whether the server ends the connection without an answer."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "sent", [b"", b"GET /small HTTP/1.1\r\nX: ", b"GET /small HTTP/1.1\r\nContent-Length: 9\r\n"]
)
def test_a_connection_without_a_request_ends(sent: bytes) -> None:
    with server(bounded(10, 0.2)) as address, socket.create_connection(address, 60) as client:
        client.sendall(sent)
        assert ended(client)


def test_a_connection_whose_client_does_not_read_ends() -> None:
    with server(bounded(10, 0.5)) as address, socket.create_connection(address, 60) as client:
        client.sendall(REQUEST.replace(b"small", b"large"))
        received = client.recv(1)  # the answer has begun
        threading.Event().wait(3)
        try:
            while data := client.recv(1 << 20):
                received += data
        except ConnectionResetError:
            pass
        assert len(received) < LARGE


def test_connections_beyond_the_limit_end_at_once_and_others_are_answered() -> None:
    with server(bounded(2, 60)) as address:
        with (
            socket.create_connection(address, 60) as one,
            socket.create_connection(address, 60),
            socket.create_connection(address, 60) as three,
        ):
            assert ended(three)
            for _ in range(3):
                one.sendall(REQUEST)
                answer = b""
                while not answer.endswith(b"\r\n\r\nsmall"):
                    answer += one.recv(1 << 16)
