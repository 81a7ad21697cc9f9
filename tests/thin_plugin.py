"""A graph driver plugin for Docker that mounts thin images: as thin-images/README.md specifies.

Docker speaks to it by HTTP over a socket ("Docker graph driver plugins", engine 20.10). Each layer
is a directory `diff`, mounted by overlayfs on those below it; in place of a layer that holds a
recipe, the directories that the recipe names are mounted.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socketserver
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KNOWN_VERSION = (1, 0)


class Driver:
    """Layers below `home`: `<id>/diff`, `<id>/parent`, and for containers `<id>/{work,merged}`."""

    def __init__(self) -> None:
        self.home = Path()
        self.mounted: dict[str, int] = {}
        self.recipes: list[Path] = []  # the paths that recipes named, as they were mounted

    def init(self, request: dict[str, Any]) -> dict[str, Any]:
        self.home = Path(request["Home"])
        self.home.mkdir(parents=True, exist_ok=True)
        return {}

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        layer = self.home / request["ID"]
        for name in ("diff", "work", "merged"):
            (layer / name).mkdir(parents=True)
            (layer / name).chmod(0o755)
        (layer / "parent").write_text(request.get("Parent") or "")
        return {}

    def remove(self, request: dict[str, Any]) -> dict[str, Any]:
        shutil.rmtree(self.home / request["ID"], ignore_errors=True)
        return {}

    def get(self, request: dict[str, Any]) -> dict[str, Any]:
        identity = request["ID"]
        layer = self.home / identity
        self.mounted[identity] = self.mounted.get(identity, 0) + 1
        if self.mounted[identity] == 1:
            lower = ":".join(map(str, self._below((layer / "parent").read_text())))
            # overlayfs needs two lower directories; an empty one at the bottom adds nothing.
            empty = self.home / "empty"
            empty.mkdir(exist_ok=True)
            options = f"lowerdir={lower}{':' if lower else ''}{empty}"
            options += f",upperdir={layer}/diff,workdir={layer}/work"
            command = ["mount", "-t", "overlay", "overlay", "-o", options, str(layer / "merged")]
            subprocess.run(command, check=True, capture_output=True)
        return {"Dir": str(layer / "merged")}

    def put(self, request: dict[str, Any]) -> dict[str, Any]:
        identity = request["ID"]
        self.mounted[identity] = self.mounted.get(identity, 1) - 1
        if self.mounted[identity] == 0:
            point = self.home / identity / "merged"
            subprocess.run(["umount", str(point)], check=True, capture_output=True)
        return {}

    def exists(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"Exists": (self.home / request["ID"]).is_dir()}

    def apply_diff(self, identity: str, archive: bytes) -> dict[str, Any]:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:*") as opened:
            opened.extractall(self.home / identity / "diff", filter="tar")
        return {"Size": len(archive)}

    def diff(self, identity: str) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(self.home / identity / "diff", arcname=".")
        return buffer.getvalue()

    def _below(self, identity: str) -> Iterator[Path]:
        """Return the directories to mount for a layer and those below it, from top to bottom."""
        while identity:
            layer = self.home / identity
            recipe = layer / "diff" / "thin.json"
            if recipe.exists():
                places = list(self._places(json.loads(recipe.read_bytes())))
                self.recipes += places
                yield from reversed(places)
            else:
                yield layer / "diff"
            identity = (layer / "parent").read_text()

    def _places(self, recipe: dict[str, Any]) -> Iterator[Path]:
        wanted = tuple(map(int, recipe["min_version"].split(".")))
        if wanted > KNOWN_VERSION:
            raise ValueError(f"a recipe of version {recipe['min_version']} is too new")
        for layer in recipe["layers"]:
            parts = urlsplit(layer["url"])
            if parts.scheme == "file":
                place = Path(unquote(parts.path))
            else:
                place = Path("/cvmfs", parts.netloc, parts.path.lstrip("/"))
            if not place.is_dir():
                raise FileNotFoundError(f"{place} is not mounted here")
            yield place


class _Handler(BaseHTTPRequestHandler):
    driver: Driver

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        body = self._body()
        try:
            answer = self._answer(parts.path, query, body)
        except Exception as error:  # noqa: BLE001  # docker expects every error in the answer
            details = getattr(error, "stderr", b"") or b""
            answer = {"Err": f"{error} {details.decode(errors='replace')}"}
        data = answer if isinstance(answer, bytes) else json.dumps({"Err": "", **answer}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.docker.plugins.v1.2+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, path: str, query: dict[str, str], body: bytes) -> dict[str, Any] | bytes:
        driver = self.driver
        if path == "/Plugin.Activate":
            return {"Implements": ["GraphDriver"]}
        call = path.removeprefix("/GraphDriver.")
        if call == "ApplyDiff":
            return driver.apply_diff(query["id"], body)
        request = json.loads(body or b"{}")
        simple = {
            "Init": driver.init,
            "Create": driver.create,
            "CreateReadWrite": driver.create,
            "Remove": driver.remove,
            "Get": driver.get,
            "Put": driver.put,
            "Exists": driver.exists,
        }
        if call in simple:
            return simple[call](request)
        if call == "Diff":
            return driver.diff(request["ID"])
        fixed: dict[str, dict[str, Any]] = {
            "Capabilities": {"ReproducesExactDiffs": False},
            "Status": {"Status": [["Driver", "thin"]]},
            "GetMetadata": {"Metadata": {}},
            "Cleanup": {},
            "Changes": {"Changes": []},
            "DiffSize": {"Size": 0},
        }
        return fixed[call]

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def address_string(self) -> str:
        return "docker"

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextmanager
def thin_plugin(directory: Path) -> Iterator[tuple[str, Driver]]:
    """The plugin, running; yields the name of the storage driver for dockerd, and the driver.

    Docker finds plugins by files in fixed places, so the name is this process' own.
    """
    name = f"thintest{os.getpid()}"
    socket = directory / "plugin.sock"
    specification = Path("/etc/docker/plugins") / f"{name}.spec"
    driver = Driver()
    handler = type("Handler", (_Handler,), {"driver": driver})
    with _Server(str(socket), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        made = [p for p in (specification.parent, specification.parent.parent) if not p.exists()]
        specification.parent.mkdir(parents=True, exist_ok=True)
        specification.write_text(f"unix://{socket}\n")
        try:
            yield name, driver
        finally:
            specification.unlink()
            for folder in made:
                folder.rmdir()
            server.shutdown()
            thread.join()
