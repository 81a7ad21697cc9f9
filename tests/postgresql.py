"""A PostgreSQL server of its own, in a temporary directory, which a test can kill and start."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from tests.components import require, run

_USER = "postgres"
_SOCKET = ".s.PGSQL.5432"
_SECONDS = 60.0


def _programs() -> str:
    """The directory of the server's programs, which Debian does not have in PATH."""
    require("pg_lsclusters")
    return str(max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name)))


class PostgreSQL:
    """A server that listens on a socket in `directory` only; the user needs no password."""

    def __init__(self, directory: Path, programs: str) -> None:
        self.directory = directory
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of its database."""
        return f"postgresql:///postgres?host={self.directory}&user={_USER}"

    @property
    def _as_user(self) -> str | None:
        return _USER if os.geteuid() == 0 else None

    def create(self) -> None:
        """Make an empty database."""
        command = [f"{self._programs}/initdb", "--auth=trust", f"--username={_USER}", "--no-sync"]
        subprocess.run(
            [*command, "-D", self.directory / "data"],
            user=self._as_user,
            check=True,
            cwd="/",
            stdout=subprocess.DEVNULL,
        )

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        until = time.monotonic() + _SECONDS
        ready = [f"{self._programs}/pg_isready", "-q", "-h", str(self.directory)]
        while time.monotonic() < until:
            if self._process is None or self._process.poll() is not None:
                # After a kill it refuses to start until the last of its processes has ended.
                self._process = self._begin()
            if subprocess.run(ready).returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError((self.directory / "log").read_text()[-2000:])

    def _begin(self) -> subprocess.Popen[bytes]:
        options = ["-c", "listen_addresses=", "-k", str(self.directory)]
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                [f"{self._programs}/postgres", "-D", self.directory / "data", *options],
                user=self._as_user,
                cwd="/",
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End the server as a loss of power does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in order, without waiting for its clients."""
        self._end(signal.SIGINT)

    def _end(self, with_signal: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(with_signal)
            self._process.wait(_SECONDS)


class SlowConnections:
    """Forwards connections to a server: `delay` seconds per piece, and nothing unless `flows`."""

    def __init__(self, server: PostgreSQL, directory: Path) -> None:
        self._server = server
        self._directory = directory
        self.delay = 0.0
        self.flows = threading.Event()
        self.flows.set()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(directory / _SOCKET))
        self._listening.listen()

    @property
    def url(self) -> str:
        """The URL of the database for connections that are forwarded."""
        return f"postgresql:///postgres?host={self._directory}&user={_USER}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.flows.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(str(self._server.directory / _SOCKET))
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self.delay)
                self.flows.wait()
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Run a server; skip the test if it is not installed."""
    programs = _programs()
    directory = Path(tempfile.mkdtemp(prefix="postgresql-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, _USER)
        directory.chmod(0o755)
        server = PostgreSQL(directory, programs)
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        run("rm", "-rf", "--one-file-system", directory)
