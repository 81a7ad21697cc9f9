"""An OCI registry for tests, in a thread, that misbehaves on request.

    with OwnRegistry() as registry:
        registry.add("library/x", "latest", image(layer(file("a"))))
        registry.misbehave(status(503), path="/blobs/", times=2)
        ...
        assert registry.count("GET", "/blobs/") == 3

It implements the distribution API for pulling and pushing, records every request with all its
headers, and requires credentials if it gets an `auth` (tests/registry_auth.py). The module
tests/registry_faults.py has the ways to misbehave.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import parse_qs, urlsplit

from publisher.oci.digest import digest_of
from publisher.oci.document import Document
from publisher.oci.media_types import OCI_INDEX
from tests.layer_builder import Image

PAGE = 100


@dataclass(frozen=True, slots=True)
class Request:
    """A received request; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and what goes wrong while it is sent."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    endless: bytes = b""
    """Bytes that are sent for ever after the body, which then has no length."""
    chunked: bool = False
    cut: int | None = None
    """Bytes of the body after which the connection ends."""
    reset: bool = False
    """Whether it then ends by a reset."""
    delay: float = 0.0
    """Seconds before the answer."""
    pause: float = 0.0
    """Seconds after every `piece` bytes of the body."""
    piece: int = 64 * 1024

    def with_headers(self, **headers: str | None) -> Reply:
        """Return the reply with other headers ("_" for "-"); None removes one."""
        merged = {k.lower(): v for k, v in self.headers.items()}
        for name, value in headers.items():
            merged.pop(name.replace("_", "-").lower(), None)
            if value is not None:
                merged[name.replace("_", "-").lower()] = value
        return replace(self, headers=merged)


Change = Callable[[Request, Reply], Reply]
"""A way to misbehave: from the correct reply to another."""


class Auth(Protocol):
    """Access control: `check` returns None for an allowed request, else a reply with status 401."""

    def check(self, registry: OwnRegistry, request: Request) -> Reply | None: ...

    def serve(self, registry: OwnRegistry, request: Request) -> Reply | None:
        """Return the answer to a request for a token, or None for any other request."""


@dataclass(slots=True)
class _Rule:
    change: Change
    method: str
    path: re.Pattern[str]
    times: int | None
    skip: int


class OwnRegistry:
    """The registry. A context manager; all methods may be called while it runs."""

    def __init__(
        self,
        auth: Auth | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        page: int = PAGE,
        address: str = "127.0.0.1",
    ) -> None:
        self.auth = auth
        self.requests: list[Request] = []
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, dict[str, Document]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.page = page
        self.lists_referrers = False
        self.connections = 0
        self.paused = 0
        self._rules: list[_Rule] = []
        self._uploads: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._closing = threading.Event()
        self._socket = socket.create_server((address, 0), backlog=128)
        self.host = f"{address}:{self._socket.getsockname()[1]}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    # The interface for tests ---------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    def add(self, name: str, tag: str | None, image: Image) -> str:
        """Add an image, as if it had been pushed; return its digest."""
        self.blobs |= image.blobs
        return self.add_document(name, tag, image.manifest)

    def add_document(self, name: str, tag: str | None, document: Document) -> str:
        """Add a manifest or index; return its digest."""
        self.manifests.setdefault(name, {})[document.digest] = document
        tags = self.tags.setdefault(name, {})
        if tag is not None:
            tags[tag] = document.digest
        return document.digest

    def misbehave(
        self,
        change: Change,
        *,
        method: str = "",
        path: str = "",
        times: int | None = None,
        skip: int = 0,
    ) -> None:
        """Change the replies to requests whose path matches the pattern `path` from now on.

        The first `skip` matching requests are answered correctly, the next `times` are changed
        (None: all).
        """
        with self._lock:
            self._rules.append(_Rule(change, method, re.compile(path), times, skip))

    def heal(self) -> None:
        """Answer correctly again."""
        with self._lock:
            self._rules.clear()

    def count(self, method: str = "", path: str = "") -> int:
        """Return the number of received requests with this method and a path that matches."""
        return len(self.seen(method, path))

    def seen(self, method: str = "", path: str = "") -> list[Request]:
        """Return the received requests with this method and a path that matches."""
        with self._lock:
            recorded = list(self.requests)
        return [r for r in recorded if method in ("", r.method) and re.search(path, r.path)]

    # Connections --------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self.connections += 1
            number = self.connections
            self._open.add(connection)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                secured = self._tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._open.discard(connection)
                    self._open.add(secured)
                connection = secured
            elif connection.recv(1, socket.MSG_PEEK) == b"\x16":
                raise ValueError("a TLS greeting")
            with connection.makefile("rb") as stream:
                while request := _read_request(stream, number):
                    if not self._reply(connection, request):
                        break
        except ValueError:
            with contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        except OSError:
            pass  # the client closed the connection: the test checks the consequences
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _reply(self, connection: socket.socket, request: Request) -> bool:
        """Send the answer; return False if the connection has to be closed."""
        with self._lock:
            self.requests.append(request)
        reply = self._answer(request)
        for change in self._changes(request):
            reply = change(request, reply)
        if reply.delay:
            self._closing.wait(reply.delay)
        return self._send(connection, request, reply)

    def _changes(self, request: Request) -> list[Change]:
        changes = []
        with self._lock:
            for rule in self._rules:
                if rule.method not in ("", request.method) or not rule.path.search(request.path):
                    continue
                if rule.skip:
                    rule.skip -= 1
                elif rule.times is None:
                    changes.append(rule.change)
                elif rule.times:
                    rule.times -= 1
                    changes.append(rule.change)
        return changes

    def _send(self, connection: socket.socket, request: Request, reply: Reply) -> bool:
        headers = {name.lower(): value for name, value in reply.headers.items()}
        chunked = reply.chunked or bool(reply.endless)
        if chunked:
            headers["transfer-encoding"] = "chunked"
            headers.pop("content-length", None)
        else:
            headers.setdefault("content-length", str(len(reply.body)))
        head = f"HTTP/1.1 {reply.status} Said\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        body = b"" if request.method == "HEAD" else reply.body
        if reply.cut is not None:
            body = body[: reply.cut]
        if not chunked and not reply.pause:
            connection.sendall(head.encode() + body)
        else:
            connection.sendall(head.encode())
            for piece in self._pieces(body, reply):
                framed = b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
                connection.sendall(framed)
            if chunked and reply.cut is None:
                connection.sendall(b"0\r\n\r\n")
        if reply.reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        whole = reply.cut is None and int(headers.get("content-length", 0)) <= len(reply.body)
        return not reply.reset and (whole or request.method == "HEAD")

    def _pieces(self, body: bytes, reply: Reply) -> Iterator[bytes]:
        for start in range(0, len(body), reply.piece):
            yield body[start : start + reply.piece]
            if reply.pause:
                with self._lock:
                    self.paused += 1
                if self._closing.wait(reply.pause):
                    return
        while reply.endless and not self._closing.is_set():
            yield reply.endless

    # The distribution API -----------------------------------------------------------------------

    def _answer(self, request: Request) -> Reply:
        if self.auth is not None:
            token = self.auth.serve(self, request)
            if token is not None:
                return token
            refused = self.auth.check(self, request)
            if refused is not None:
                return refused
        reply = self._api(request)
        return reply.with_headers(docker_distribution_api_version="registry/2.0")

    def _api(self, request: Request) -> Reply:
        path = request.path
        if path == "/v2/":
            return json_reply(200, {})
        if found := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            return self._manifest(request, found[1], found[2])
        if found := re.fullmatch(r"/v2/(.+)/blobs/uploads/([^/]*)", path):
            return self._upload(request, found[1], found[2])
        if found := re.fullmatch(r"/v2/(.+)/blobs/([^/]+)", path):
            return self._blob(request, found[2])
        if self.lists_referrers and (found := re.fullmatch(r"/v2/(.+)/referrers/(.+)", path)):
            return self._referrers(found[1], found[2])
        if found := re.fullmatch(r"/v2/(.+)/tags/list", path):
            return self._tags(request, found[1])
        return error_reply(404, "UNSUPPORTED")

    def _manifest(self, request: Request, name: str, reference: str) -> Reply:
        if request.method == "PUT":
            kind = request.headers.get("content-type", "")
            document = Document(request.body, kind, digest_of(request.body))
            tag = None if ":" in reference else reference
            digest = self.add_document(name, tag, document)
            return Reply(201, {"Docker-Content-Digest": digest, "Location": request.path})
        if name not in self.manifests:
            return error_reply(404, "NAME_UNKNOWN")
        digest = self.tags[name].get(reference, reference)
        found = self.manifests[name].get(digest)
        if found is None:
            return error_reply(404, "MANIFEST_UNKNOWN")
        headers = {"Content-Type": found.media_type, "Docker-Content-Digest": found.digest}
        return Reply(200, headers, found.data)

    def _blob(self, request: Request, digest: str) -> Reply:
        data = self.blobs.get(digest)
        if data is None:
            return error_reply(404, "BLOB_UNKNOWN")
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        return ranged(request, Reply(200, headers, data))

    def _referrers(self, name: str, digest: str) -> Reply:
        """Answer as the OCI distribution specification 1.1 requires."""
        found = []
        for document in self.manifests.get(name, {}).values():
            value = json.loads(document.data)
            if value.get("subject", {}).get("digest") == digest:
                found.append(
                    {
                        "mediaType": document.media_type,
                        "digest": document.digest,
                        "size": len(document.data),
                        "artifactType": value.get("artifactType") or value["config"]["mediaType"],
                    }
                )
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
        return json_reply(200, index).with_headers(content_type=OCI_INDEX)

    def _tags(self, request: Request, name: str) -> Reply:
        if name not in self.tags:
            return error_reply(404, "NAME_UNKNOWN")
        tags = sorted(self.tags[name])
        last = request.query.get("last", [""])[0]
        rest = [tag for tag in tags if tag > last]
        size = int(request.query.get("n", [str(self.page)])[0])
        reply = json_reply(200, {"name": name, "tags": rest[:size]})
        if len(rest) > size:
            link = f'</v2/{name}/tags/list?last={rest[size - 1]}&n={size}>; rel="next"'
            return reply.with_headers(link=link)
        return reply

    def _upload(self, request: Request, name: str, upload: str) -> Reply:
        with self._lock:
            if request.method == "POST":
                mounted = request.query.get("mount", [""])[0]
                if mounted in self.blobs:
                    return Reply(201, {"Location": f"/v2/{name}/blobs/{mounted}"})
                upload = str(len(self._uploads) + 1)
                self._uploads[upload] = b""
            elif upload not in self._uploads:
                return error_reply(404, "BLOB_UPLOAD_UNKNOWN")
            self._uploads[upload] += request.body
            data = self._uploads[upload]
            if digest := request.query.get("digest", [""])[0]:
                if digest_of(data, digest.partition(":")[0]) != digest:
                    return error_reply(400, "DIGEST_INVALID")
                self.blobs[digest] = data
                location = f"/v2/{name}/blobs/{digest}"
                return Reply(201, {"Location": location, "Docker-Content-Digest": digest})
        location = f"/v2/{name}/blobs/uploads/{upload}"
        return Reply(202, {"Location": location, "Range": f"0-{max(0, len(data) - 1)}"})


def ranged(request: Request, reply: Reply) -> Reply:
    """Return the part of a reply that a Range header requests."""
    found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    if found is None or reply.status != 200:
        return reply
    start, size = int(found[1]), len(reply.body)
    if start >= size:
        return Reply(416, {"Content-Range": f"bytes */{size}"})
    partial = replace(reply, status=206, body=reply.body[start:])
    return partial.with_headers(content_range=f"bytes {start}-{size - 1}/{size}")


def json_reply(status: int, value: Any) -> Reply:
    """Return a reply with a JSON document."""
    return Reply(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


def error_reply(status: int, code: str, message: str = "no") -> Reply:
    """Return an error reply as the specification defines it."""
    return json_reply(status, {"errors": [{"code": code, "message": message}]})


def _read_request(stream: Any, connection: int) -> Request | None:
    line = stream.readline(65536)
    if not line.strip():
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers = {}
    while (line := stream.readline(65536)) not in (b"\r\n", b"\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = b""
    if "chunked" in headers.get("transfer-encoding", ""):
        while size := int(stream.readline(), 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    elif length := int(headers.get("content-length", 0)):
        body = stream.read(length)
    return Request(method, target, headers, body, connection)


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until `condition` is true; AssertionError if that takes longer than `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition is not true in time"
        time.sleep(0.005)
