"""Running `cvmfs_server`, and what its failures mean."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from publisher.repository import RepositoryError

COMMAND = "cvmfs_server"
_KEPT_LINES = 200
_SHOWN_LINES = 12
_PIPE_PIECE = 64 * 1024
_OUTPUT_SECONDS = 5

_log = logging.getLogger(__name__)

Feed = Callable[[Callable[[bytes], None]], None]


class ServerRefused(RepositoryError):
    """`cvmfs_server` failed; its own words are in `why`, and in the debug log."""


class TransactionOpen(ServerRefused):
    """Another transaction is open, or a lease of the same part of the tree: wait."""


class FilesInUse(ServerRefused):
    """Processes have files of the mounted repository open, or their working directory there."""


class StreamCut(Exception):
    """The server ended before it had read everything."""


class Server:
    """`cvmfs_server` for one repository. `started` is told the id of each process group."""

    def __init__(self, name: str, started: Callable[[int], None] | None = None) -> None:
        self._name = name
        self._started = started or (lambda pid: None)

    def run(self, arguments: Sequence[str], feed: Feed | None = None) -> str:
        """Run one command to its end, and return what it printed.

        `feed` writes the command's standard input; without one it has none, and whatever it asks is
        answered by nothing. If `feed` raises, the command and all it started are killed first, so
        that a stream that was cut is never taken for one that ended.
        """
        command = [_find_command(self._name), *arguments]
        _log.debug("running %s", " ".join(command))
        # Nothing begins before we say so: by then it is written down that this is ours. If we die
        # before, the shell reads the end of its input, and does not run the command.
        process = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r go && exec "$@"', "sh", *command],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        output = _Output(process)
        try:
            self._started(process.pid)
            _feed(process, feed)
        except StreamCut:
            _log.debug("%s stopped reading", COMMAND)
        except BaseException:
            _kill(process)
            raise
        finally:
            code = process.wait()
            text = output.text()
            if process.stdin is not None:
                process.stdin.close()
        if code != 0:
            raise explain(self._name, arguments, code, text)
        return text

    def list_state(self) -> str:
        """What `cvmfs_server list` says of the repository in brackets: "stratum0 / local"."""
        for line in self.run(["list"]).splitlines():
            if line.startswith(f"{self._name} "):
                return line.partition("(")[2].partition(")")[0]
        return ""


def version() -> tuple[int, ...] | None:
    """The version of `cvmfs_server`; None where it does not say."""
    command = shutil.which(COMMAND)
    if command is None:
        return None
    done = subprocess.run(
        [command], cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    found = re.search(r"Server Tool v?(\d+)\.(\d+)(?:\.(\d+))?", done.stdout + done.stderr)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def holders_of(mount: Path) -> list[str]:
    """Who has a file or the working directory below `mount`: "process 4711 (bash): /cvmfs/…".

    Only processes that we may look at are seen: all of them as root. Files that we have open
    ourselves do not count: they are read for a moment only, and not while the server publishes.
    """
    top = str(mount)
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            links = [process / "cwd"]
            if process.name != str(os.getpid()):
                links += (process / "fd").iterdir()
            command = (process / "comm").read_text().strip()
        except OSError:
            continue
        for link in links:
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target == top or target.startswith(f"{top}/"):
                found.append(f"process {process.name} ({command}): {target}")
                break
    return found


def explain(name: str, arguments: Sequence[str], code: int, output: str) -> ServerRefused:
    """The error that says what a failure of `cvmfs_server` means, and what helps."""
    what = f"cannot publish to cvmfs:{name}"
    lines = [line for line in output.splitlines() if line.strip()]
    said = " / ".join(lines[-_SHOWN_LINES:]) or "it said nothing"
    why = f"cvmfs_server {arguments[0]} ended with {code}: {said}"
    if code == errno.EEXIST or "already in a transaction" in output:
        return TransactionOpen(what, why=why, hint=f"see who it is: cvmfs_server list {name}")
    if code == errno.EBUSY or "Could not acquire a new lease" in output:
        return TransactionOpen(
            what, why=why, hint="another publisher holds a lease; try again later, or with --wait"
        )
    if "file descriptors" in output or "Current working directory is in" in output:
        return FilesInUse(
            what, why=why, hint=f"end what uses it: lsof +D /cvmfs/{name}, or fuser -vm"
        )
    for sign, hint in _HINTS:
        if sign in output:
            return ServerRefused(what, why=why, hint=hint.format(name=name))
    if code < 0:
        return ServerRefused(
            what,
            why=f"cvmfs_server {arguments[0]} was killed by signal {-code}",
            hint="try again: what it left behind is cleared first",
        )
    return ServerRefused(what, why=why, hint=f"run cvmfs_server check {name}")


_HINTS = (
    ("whitelist", "sign it anew on the machine with the master key: cvmfs_server resign {name}"),
    ("Permission denied", "publish as the repository's owner"),
    ("No space left", "make room in /var/spool/cvmfs/{name} and in the repository's storage"),
    ("unhealthy", "look at it: cvmfs_server list; then cvmfs_server abort -f {name}"),
    ("does not exist", "make it: cvmfs_server mkfs -o OWNER {name}"),
    ("not mounted", "mount it: cvmfs_server mount {name}"),
)


def _find_command(name: str) -> str:
    command = shutil.which(COMMAND)
    if command is None:
        raise RepositoryError(
            f"cannot publish to cvmfs:{name}",
            why=f"there is no {COMMAND} on this machine",
            hint="install the package cvmfs-server, or publish where it is installed",
        )
    return command


def _feed(process: subprocess.Popen[bytes], feed: Feed | None) -> None:
    assert process.stdin is not None
    descriptor = process.stdin.fileno()
    waiting = b"go\n"

    def write(data: bytes) -> None:
        nonlocal waiting
        view = memoryview(waiting + data)
        waiting = b""
        try:
            while view:
                view = view[os.write(descriptor, view[:_PIPE_PIECE]) :]
        except BrokenPipeError as error:
            raise StreamCut from error

    if feed is not None:
        feed(write)
    if waiting:
        write(b"")
    process.stdin.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the command and everything that it started, before its input is closed."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class _Output:
    """What a command prints: logged as it comes, its end kept."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._file = process.stdout
        self._thread = threading.Thread(target=self._read, name="cvmfs-output", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Everything that is kept, once the command has ended."""
        # The server mounts the repository anew, by a process that may keep our pipe open.
        self._thread.join(_OUTPUT_SECONDS)
        if not self._thread.is_alive():
            self._file.close()
        return "\n".join(self._lines)

    def _read(self) -> None:
        for line in self._file:
            text = line.decode("utf-8", "replace").rstrip()
            _log.debug("%s: %s", COMMAND, text)
            self._lines.append(text)
