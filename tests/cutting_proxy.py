"""A forwarder of TCP connections that ends each after a number of bytes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass(slots=True)
class CuttingProxy:
    """Forwards to `target` ("host:port"); a connection ends after `limit` bytes from there.

    At most `cuts` connections end so, each `pause` seconds after its last byte.
    """

    target: str
    limit: int
    cuts: int
    pause: float = 0.0
    host: str = ""
    done: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def _forward(self, client: socket.socket) -> None:
        address, _, port = self.target.rpartition(":")
        with client, socket.create_connection((address, int(port))) as upstream:
            threading.Thread(target=self._pump, args=(client, upstream), daemon=True).start()
            received = 0
            with suppress(OSError):
                while data := upstream.recv(65536):
                    received += len(data)
                    if received > self.limit and self._may_cut():
                        time.sleep(self.pause)
                        break
                    client.sendall(data)
                client.shutdown(socket.SHUT_RDWR)

    def _may_cut(self) -> bool:
        with self._lock:
            if self.done >= self.cuts:
                return False
            self.done += 1
            return True

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve(self, listener: socket.socket) -> None:
        """Accept connections until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()


@contextmanager
def cutting_proxy(
    target: str, *, limit: int, cuts: int, pause: float = 0.0
) -> Iterator[CuttingProxy]:
    """Run a forwarder, which listens at its `host`."""
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = CuttingProxy(target, limit, cuts, pause, f"127.0.0.1:{listener.getsockname()[1]}")
    threading.Thread(target=proxy.serve, args=(listener,), daemon=True).start()
    try:
        yield proxy
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
