"""Connections for requests and urllib3 with three additional properties.

- Another thread can end them, also while they are being opened. A thread that waits for data cannot
  be interrupted, but its socket can be shut down, which ends the wait. urllib3 does not expose its
  sockets, so they are collected when they are created.
- Interim answers (1xx) are skipped, and an answer that ends within its header is an error. The
  standard library returns the former as the answer, and the latter as an answer without a body.
- An answer that arrives too slowly is an error, also within its header.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import os
import socket
import ssl
import threading
import time
import weakref
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.util.connection import allowed_gai_family
from urllib3.util.wait import wait_for_write

from publisher.lazy import pattern

SLOW_AFTER = 120.0
"""Seconds of waiting after which the rate of an answer has to be at least SLOWEST."""
SLOWEST = 1024
"""The lowest rate in bytes per second; a slower connection counts as failed."""
MAX_INTERIM = 16
"""The most interim answers before the final one."""

_INTERIM = pattern(rb"HTTP/1\.[0-9] 1(?!01)[0-9][0-9](?![0-9])")


class Sockets:
    """The sockets of all connections to one host. Safe to use from several threads."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._shut = False

    def add(self, made: socket.socket) -> None:
        """Add a socket; after `shut`, it is shut down at once."""
        with self._lock:
            self._open.add(made)
            if self._shut:
                _shut(made)

    def shut(self) -> None:
        """Shut down these sockets, and those that are added later, which ends all waits."""
        with self._lock:
            self._shut = True
            for each in self._open:
                _shut(each)


def _shut(each: socket.socket) -> None:
    # The method of a TLS socket would discard the TLS session, which a reader may be using.
    # An error means that the connection has ended already.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(each, socket.SHUT_RDWR)


def _opened(connection: HTTPConnection, sockets: Sockets) -> socket.socket:
    """Return a connected socket, as urllib3 makes it. `sockets` has it while it is connecting."""
    host = connection._dns_host.strip("[]")
    cause: OSError = OSError(errno.EADDRNOTAVAIL, "the host has no address")
    try:
        host.encode("idna")
        found = socket.getaddrinfo(host, connection.port, allowed_gai_family(), socket.SOCK_STREAM)
    except UnicodeError:
        raise LocationParseError(f"{host!r}, label empty or too long") from None
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    for family, kind, protocol, _, address in found:
        made = socket.socket(family, kind, protocol)
        try:
            for option in connection.socket_options or ():
                made.setsockopt(*option)
            _connect(made, address, connection.timeout, sockets)
            return made
        except OSError as error:
            made.close()
            cause = error
    if isinstance(cause, TimeoutError):
        raise ConnectTimeoutError(connection, f"{connection.host} does not answer") from cause
    raise NewConnectionError(connection, str(cause)) from cause


def _connect(made: socket.socket, address: Any, timeout: Any, sockets: Sockets) -> None:
    """Connect a socket. Only one that is connecting already can be shut down by `sockets`."""
    made.setblocking(False)
    code = made.connect_ex(address)
    sockets.add(made)
    if code == errno.EINPROGRESS:
        if not wait_for_write(made, timeout):
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    made.settimeout(timeout)


class BrokenAnswer(OSError):
    """An answer ended inside its header, or arrived too slowly."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.ECONNRESET, why)


class _Response(http.client.HTTPResponse):
    """One answer."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp: Any = io.BufferedReader(_Watched(self.fp.detach()))

    def begin(self) -> None:
        """Read the header; called by http.client."""
        stream = self.fp
        header = self.fp = _Header(stream)
        try:
            super().begin()
        finally:
            if self.fp is header:  # and not closed
                self.fp = stream


class _Watched(io.RawIOBase):
    """The bytes of one answer. Raises BrokenAnswer if they arrive too slowly."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._spent = 0.0
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._spent > SLOW_AFTER and self._received < SLOWEST * self._spent:
            raise BrokenAnswer(f"only {self._received} bytes arrived in {self._spent:.0f} s")
        began = time.monotonic()
        count = self._raw.readinto(buffer)
        self._spent += time.monotonic() - began
        self._received += count or 0
        return int(count) if count is not None else None

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Header:
    """The header of the final answer, as lines for http.client."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._is_first = True

    def readline(self, limit: int = -1) -> bytes:
        if not self._is_first:
            return self._line(limit)
        self._is_first = False
        line = self._first_line(limit)
        for _ in range(MAX_INTERIM):
            if not _INTERIM.match(line):
                return line
            self._skip_header(limit)
            line = self._line(limit)
        raise http.client.HTTPException(f"more than {MAX_INTERIM} interim answers")

    def close(self) -> None:
        """Close the answer; called by http.client for a malformed one."""
        self._stream.close()

    def _first_line(self, limit: int) -> bytes:
        """Return the first line, or b"" if the server closed an idle connection."""
        line = self._stream.readline(limit)
        is_http = line.startswith(b"HTTP/") or b"HTTP/".startswith(line)
        if line and not line.endswith(b"\n") and len(line) != limit and is_http:
            raise BrokenAnswer("the connection ended inside the header of the answer")
        return line

    def _line(self, limit: int) -> bytes:
        line = self._stream.readline(limit)
        if not line.endswith(b"\n") and len(line) != limit:
            raise BrokenAnswer("the connection ended inside the header of the answer")
        return line

    def _skip_header(self, limit: int) -> None:
        for _ in range(http.client._MAXHEADERS):  # type: ignore[attr-defined]
            if not self._line(limit).strip():
                return
        raise http.client.HTTPException("an interim answer has too many headers")


class Adapter(HTTPAdapter):
    """The connections of requests with these properties; `context`, if given, is for TLS."""

    def __init__(self, sockets: Sockets, size: int, context: ssl.SSLContext | None = None) -> None:
        self._pools = _pools(sockets)
        self._context: dict[str, Any] = {} if context is None else {"ssl_context": context}
        super().__init__(pool_connections=1, pool_maxsize=size)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **options: Any
    ) -> None:
        """Called by requests, for direct connections."""
        super().init_poolmanager(connections, maxsize, block, **options, **self._context)
        self._use_pools(self.poolmanager)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Called by requests before each request.

        With a context, its authorities alone are trusted. requests would add those of the package
        certifi to it, for each connection, which takes longer than the rest of a request.
        """
        super().cert_verify(conn, url, verify, cert)
        if self._context:
            conn.ca_certs = None

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Called by requests, for connections through a proxy."""
        manager = super().proxy_manager_for(proxy, **options, **self._context)
        self._use_pools(manager)
        return manager

    def _use_pools(self, manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = self._pools


def _pools(sockets: Sockets) -> dict[str, type[HTTPConnectionPool]]:
    """Return urllib3's pools by scheme, whose connections add their sockets to `sockets`."""

    class Plain(HTTPConnection):
        response_class = _Response

        def _new_conn(self) -> socket.socket:
            return _opened(self, sockets)

    class Secure(HTTPSConnection):
        response_class = _Response
        _twin: socket.socket | None = None

        def _new_conn(self) -> socket.socket:
            made = _opened(self, sockets)
            # The socket for TLS takes its place, but is not known before the handshake has ended.
            self._twin = made.dup()
            sockets.add(self._twin)
            return made

        def connect(self) -> None:
            try:
                super().connect()
            finally:
                if self._twin is not None:
                    self._twin.close()
                    self._twin = None
            sockets.add(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
