"""Connections of urllib3 with three additional properties.

- Another thread can end them, also while they are being opened. A thread that waits for data cannot
  be interrupted, but its socket can be shut down, which ends the wait. urllib3 does not expose its
  sockets, so they are collected when they are created.
- Interim answers (1xx) are skipped, and an answer that ends within its header is an error. The
  standard library returns the former as the answer, and the latter as an answer without a body.
- An answer that arrives too slowly is an error, also within its header, and so is one whose trailer
  does not end.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import http.client
import io
import os
import socket
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from urllib3 import (
    BaseHTTPResponse,
    HTTPConnectionPool,
    HTTPSConnectionPool,
    PoolManager,
    ProxyManager,
    Timeout,
)
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.util import parse_url
from urllib3.util.connection import allowed_gai_family
from urllib3.util.wait import wait_for_write

from publisher.lazy import pattern
from publisher.sources.http.networks import ForbiddenAddress, Network, leads_to

SLOW_AFTER = 120.0
"""Seconds of waiting after which the rate of an answer has to be at least SLOWEST."""
SLOWEST = 1024
"""The lowest rate in bytes per second; a slower connection counts as failed."""
MAX_TRAILER_LINE = 65536
"""The bytes of a line in the trailer of a body; a longer one counts as several."""
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


def _opened(
    connection: HTTPConnection, sockets: Sockets, origin: Network | None
) -> tuple[socket.socket, str]:
    """Return a connected socket, as urllib3 makes it, and its address.

    `sockets` has it while it is connecting. With `origin`, only addresses are used to which a
    server in this network may lead; raises ForbiddenAddress if the host has none of these.
    """
    host = connection._dns_host.strip("[]")
    cause: OSError = OSError(errno.EADDRNOTAVAIL, "the host has no address")
    try:
        host.encode("idna")
        found = socket.getaddrinfo(host, connection.port, allowed_gai_family(), socket.SOCK_STREAM)
    except UnicodeError:
        raise LocationParseError(f"{host!r}, label empty or too long") from None
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    if origin is not None:
        usable = [each for each in found if leads_to(origin, str(each[4][0]))]
        if found and not usable:
            raise ForbiddenAddress(str(found[0][4][0]))
        found = usable
    for family, kind, protocol, _, address in found:
        made = socket.socket(family, kind, protocol)
        try:
            for option in connection.socket_options or ():
                made.setsockopt(*option)
            _connect(made, address, connection.timeout, sockets)
            return made, str(address[0])
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

    def _read_and_discard_trailer(self) -> None:
        """Skip the trailer of a chunked body; http.client itself would read any number of lines."""
        for _ in range(http.client._MAXHEADERS):  # type: ignore[attr-defined]
            if not self.fp.readline(MAX_TRAILER_LINE).strip():
                return
        raise http.client.HTTPException("the trailer is too long")


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


class Connections:
    """Connections to one host, direct or through `proxy`. Safe to use from several threads.

    Args:
        proxy: The address of the proxy, or "".
        size: How many connections are kept for further requests.
        tls: How TLS is used, as arguments of urllib3's pools.
        origin: The network of the server that led to the host; None if it may be anywhere. Not for
            connections through a proxy, which resolves the name.

    Raises:
        ValueError: The address of the proxy cannot be used.
    """

    def __init__(
        self, proxy: str, size: int, tls: Mapping[str, Any], origin: Network | None = None
    ) -> None:
        self._sockets = Sockets()
        if proxy:
            authorization = basic_authorization(proxy)
            headers = {"Proxy-Authorization": authorization} if authorization else None
            self._manager: PoolManager = ProxyManager(
                proxy, num_pools=1, proxy_headers=headers, maxsize=size, **tls
            )
        else:
            self._manager = PoolManager(num_pools=1, maxsize=size, **tls)
        self._manager.pool_classes_by_scheme = _pools(self._sockets, None if proxy else origin)

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeouts: tuple[float, float],
    ) -> BaseHTTPResponse:
        """Send one request; redirects are not followed, and the body is not read.

        Raises:
            OSError, urllib3.exceptions.HTTPError: The connection failed.
        """
        parts = parse_url(url)
        pool = self._manager.connection_from_host(parts.host, parts.port, parts.scheme)
        # A proxy for plain HTTP needs the whole address.
        is_forwarded = pool.proxy is not None and parts.scheme == "http"
        target = parts._replace(auth=None, fragment=None).url if is_forwarded else parts.request_uri
        connect, read = timeouts
        try:
            return pool.urlopen(
                method,
                target,
                body,
                headers,
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=Timeout(connect=connect, read=read),
                preload_content=False,
                decode_content=False,
            )
        except (OSError, HTTPError):
            raise
        except ValueError as error:  # such as a line break in a header
            raise InvalidHeader(str(error)) from error

    def close(self) -> None:
        """Close all connections; requests that wait for an answer end with an error."""
        self._sockets.shut()
        self._manager.clear()


def peer_of(response: BaseHTTPResponse) -> str:
    """Return the address of the other end of the connection of an answer; "" if it is not known."""
    return str(getattr(response.connection, "peer", ""))


def basic_authorization(url: str) -> str:
    """Return the header for user and password in an address; "" without both."""
    user, separator, password = (parse_url(url).auth or "").partition(":")
    if not separator:
        return ""
    pair = f"{unquote(user)}:{unquote(password)}".encode()  # in UTF-8: RFC 7617, section 2.1
    return f"Basic {base64.b64encode(pair).decode()}"


def _pools(sockets: Sockets, origin: Network | None) -> dict[str, type[HTTPConnectionPool]]:
    """Return urllib3's pools by scheme, whose connections add their sockets to `sockets`.

    `origin` is as in `Connections`.
    """

    class Plain(HTTPConnection):
        response_class = _Response
        peer = ""

        def _new_conn(self) -> socket.socket:
            made, self.peer = _opened(self, sockets, origin)
            return made

    class Secure(HTTPSConnection):
        response_class = _Response
        peer = ""
        _twin: socket.socket | None = None

        def _new_conn(self) -> socket.socket:
            made, self.peer = _opened(self, sockets, origin)
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
            # With TLS to a proxy as well, it is not a socket, but contains that of the proxy.
            sockets.add(getattr(self.sock, "socket", self.sock))

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
