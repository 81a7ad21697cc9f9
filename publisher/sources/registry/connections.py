"""Connections that can be broken off from another thread, whatever they wait for.

A thread that waits for a server's next byte cannot be told to stop, but its socket can be shut: the
wait then ends at once. urllib3 keeps its sockets to itself, so they are noted as they are made.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import weakref
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection


class Sockets:
    """The sockets of all connections to one host. Safe to use from several threads."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._shut = False

    def add(self, made: socket.socket) -> None:
        """Note a socket; it is shut at once where all of them have been."""
        with self._lock:
            self._open.add(made)
            if self._shut:
                _shut(made)

    def shut(self) -> None:
        """End all waits for these sockets, now and from now on."""
        with self._lock:
            self._shut = True
            for each in self._open:
                _shut(each)


def _shut(each: socket.socket) -> None:
    # Not the method of a TLS socket: that one forgets its session, which its reader may be using.
    # A connection that has ended by itself meanwhile cannot be shut, and need not be.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(each, socket.SHUT_RDWR)


class Adapter(HTTPAdapter):
    """requests' connections, with their sockets noted; TLS by `context`, if one is given."""

    def __init__(self, sockets: Sockets, size: int, context: ssl.SSLContext | None = None) -> None:
        self._pools = _pools(sockets)
        self._context: dict[str, Any] = {} if context is None else {"ssl_context": context}
        super().__init__(pool_connections=1, pool_maxsize=size)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **options: Any
    ) -> None:
        """Called by requests, for direct connections."""
        super().init_poolmanager(connections, maxsize, block, **options, **self._context)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Called by requests, for connections through a proxy."""
        manager = super().proxy_manager_for(proxy, **options, **self._context)
        self._watch(manager)
        return manager

    def _watch(self, manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = self._pools


def _pools(sockets: Sockets) -> dict[str, type[HTTPConnectionPool]]:
    """urllib3's pools by scheme, whose connections tell `sockets` of theirs."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            sockets.add(self.sock)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            sockets.add(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
