"""A PostgreSQL server of its own, in a temporary directory, which a test can kill and start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.components import require, run

_USER = "postgres"
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
