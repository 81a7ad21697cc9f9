"""HTTP servers on loopback, each with a function that answers its requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Received(BaseHTTPRequestHandler):
    """A request, which is to be answered."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        """Send a whole answer. Names of headers have `_` in place of `-`."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def http_server(respond: Callable[[Received], None]) -> Iterator[str]:
    """Call `respond` for GET and POST, in threads; yield the address, without a path."""

    class Handler(Received, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            respond(self)

        def do_POST(self) -> None:
            respond(self)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
