"""Run `cvmfs_server`, and explain its failures."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import select
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from publisher.repository import RepositoryError
from publisher.repository.cvmfs.configuration import Configuration
from publisher.repository.cvmfs.progress import Watch

COMMAND = "cvmfs_server"
_KEPT_LINES = 200
_SHOWN_LINES = 12
_PIPE_BYTES = 2**20
"""The size of the pipe to a command, if the kernel permits it."""

_OUTPUT_SECONDS = 5
_CHECK_SECONDS = 0.5
_VERSION_SECONDS = 30
_GO = b"go\n"
NOT_PERMITTED = "Permission denied"
NO_SPACE = "No space left"

_log = logging.getLogger(__name__)

Feed = Callable[[Callable[[bytes], None]], None]


class ServerRefused(RepositoryError):
    """`cvmfs_server` failed. `why` has the end of its output; all of it is in the debug log.

    `known_cause` is the part of the output from which `hint` follows, or "".
    """

    def __init__(self, what: str, *, why: str, hint: str, known_cause: str = "") -> None:
        super().__init__(what, why=why, hint=hint)
        self.known_cause = known_cause


class TransactionOpen(ServerRefused):
    """Another transaction is open, or another lease covers the same part of the tree."""


class FilesInUse(ServerRefused):
    """Processes have a file or their working directory in the mounted repository."""


class StreamCut(Exception):
    """The server stopped reading before the end of its standard input."""


class Server:
    """Runs `cvmfs_server` for one repository.

    Args:
        configuration: The configuration of the repository.
        started: Called with the process group ID of each command before it starts.
        wait: Seconds without progress after which a command is ended; see `progress.Watch`.
        notify: Called with a sentence when a command makes no progress.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        started: Callable[[int], None] = lambda group: None,
        wait: float = 0,
        notify: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._configuration = configuration
        self._name = configuration.name
        self._started = started
        self._wait = wait
        self._notify = notify

    def run(self, arguments: Sequence[str], feed: Feed | None = None) -> str:
        """Run one command to its end, and return its output.

        `feed` writes the command's standard input, which is empty without it. If `feed` raises, the
        command and all its children are killed before the input is closed, so that the server does
        not publish an incomplete stream.

        Raises:
            TransactionOpen: Another transaction or lease blocks it.
            FilesInUse: Processes use the mounted repository.
            ServerStalled: The command made no progress for too long, and was killed.
            ServerRefused: The command failed for another reason.
        """
        command = [_find_command(self._name), *arguments]
        _log.debug("running %s", " ".join(command))
        # The command starts only after `started` has recorded its process group. If this process
        # is killed before, the shell reads the end of its input and does not run the command.
        process = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r go && exec "$@"', "sh", *command],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        output = _Output(process)
        what = f"cvmfs_server {arguments[0]}"
        watch = Watch(process.pid, what, self._configuration, self._wait, self._notify)
        standard_input = _Input(process, lambda fed: watch.check((fed, output.count)))
        try:
            self._started(process.pid)
            with suppress(StreamCut):
                standard_input.feed(feed)
            code = _wait(process, lambda: watch.check((standard_input.fed, output.count)))
        except BaseException:
            _kill(process)
            raise
        finally:
            standard_input.close()
        text = output.text()
        if code != 0:
            raise explain(self._name, arguments, code, text)
        return text

    def list_state(self) -> str:
        """Return the text in brackets of `cvmfs_server list`: "stratum0 / local - …"."""
        for line in self.run(["list"]).splitlines():
            if line.startswith(f"{self._name} "):
                return line.partition("(")[2].partition(")")[0]
        return ""


def version() -> tuple[int, ...] | None:
    """Return the version of `cvmfs_server`; None if it is missing or prints no version."""
    command = shutil.which(COMMAND)
    if command is None:
        return None
    try:
        done = subprocess.run(
            [command],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_VERSION_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    found = re.search(r"Server Tool v?(\d+)\.(\d+)(?:\.(\d+))?", done.stdout + done.stderr)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def holders_of(mount: Path) -> list[str]:
    """Return the processes with a file or their working directory below `mount`.

    Each is described like "process 4711 (bash): /cvmfs/…". Only processes that this user may
    inspect are found; root finds all. This process is omitted: it closes its files before the
    server publishes.
    """
    top = str(mount)
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        target = _first_below(top, pid)
        if not target:
            continue
        with suppress(OSError):
            command = Path("/proc", pid, "comm").read_text().strip()
            found.append(f"process {pid} ({command}): {target}")
    return found


def _first_below(top: str, pid: str) -> str:
    """Return the working directory or an open file of the process that is below `top`, or "".

    Paths are texts here, since a machine may have many thousands of open files.
    """
    process = f"/proc/{pid}"
    links = [f"{process}/cwd"]
    try:
        if pid != str(os.getpid()):
            links += [f"{process}/fd/{number}" for number in os.listdir(f"{process}/fd")]
    except OSError:
        return ""
    for link in links:
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith(top) and (target == top or target.startswith(f"{top}/")):
            return target
    return ""


def explain(name: str, arguments: Sequence[str], code: int, output: str) -> ServerRefused:
    """Return the error for a failure of `cvmfs_server`, with its cause and a hint."""
    what = f"cannot publish to cvmfs:{name}"
    lines = [line for line in output.splitlines() if line.strip()]
    tail = " / ".join(lines[-_SHOWN_LINES:]) or "it printed nothing"
    why = f"cvmfs_server {arguments[0]} ended with {code}: {tail}"
    if code == errno.EEXIST or "already in a transaction" in output:
        return TransactionOpen(what, why=why, hint=f"show it: cvmfs_server list {name}")
    if code == errno.EBUSY or "Could not acquire a new lease" in output:
        return TransactionOpen(
            what,
            why=why,
            hint="another publisher holds a lease; try again later, or wait longer with --wait",
        )
    if "file descriptors" in output or "Current working directory is in" in output:
        return FilesInUse(
            what, why=why, hint=f"end the processes that use it: lsof +D /cvmfs/{name}"
        )
    for sign, hint in _HINTS:
        if sign in output:
            return ServerRefused(what, why=why, hint=hint.format(name=name), known_cause=sign)
    if code < 0:
        return ServerRefused(
            what,
            why=f"cvmfs_server {arguments[0]} was killed by signal {-code}",
            hint="try again: its transaction is aborted first",
        )
    return ServerRefused(what, why=why, hint=f"run cvmfs_server check {name}")


_HINTS = (
    ("whitelist", "renew it on the machine with the master key: cvmfs_server resign {name}"),
    (NOT_PERMITTED, "publish as the repository's owner"),
    (NO_SPACE, "free space in /var/spool/cvmfs/{name} and in the repository's storage"),
    ("unhealthy", "show it: cvmfs_server list; then cvmfs_server abort -f {name}"),
    ("does not exist", "create it: cvmfs_server mkfs -o OWNER {name}"),
    ("not mounted", "mount it: cvmfs_server mount {name}"),
)


def _find_command(name: str) -> str:
    command = shutil.which(COMMAND)
    if command is None:
        raise RepositoryError(
            f"cannot publish to cvmfs:{name}",
            why=f"{COMMAND} is not installed on this machine",
            hint="install the package cvmfs-server, or publish on a machine that has it",
        )
    return command


def _wait(process: subprocess.Popen[bytes], check: Callable[[], None]) -> int:
    """Wait for the end of the command, and call `check` regularly meanwhile."""
    # With a timeout, Popen.wait looks for the end in intervals of up to 50 ms.
    waiting = threading.Thread(target=process.wait, name="cvmfs-end", daemon=True)
    waiting.start()
    while True:
        waiting.join(_CHECK_SECONDS)
        if not waiting.is_alive():
            return process.wait()
        check()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the command and all its children, before its input is closed."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A process that is blocked in the kernel by a mount may not end.
    with suppress(subprocess.TimeoutExpired):
        process.wait(_OUTPUT_SECONDS)


class _Input:
    """The standard input of a command. `check` is called while it accepts no data."""

    def __init__(self, process: subprocess.Popen[bytes], check: Callable[[int], None]) -> None:
        assert process.stdin is not None
        self._file = process.stdin
        self._check = check
        self._held = _GO
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLOUT)
        self.fed = 0
        os.set_blocking(self._file.fileno(), False)
        with suppress(OSError):  # the user has too many large pipes: this one stays small
            fcntl.fcntl(self._file, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def feed(self, feed: Feed | None) -> None:
        """Start the command and write its input; raise StreamCut if it stops reading."""
        if feed is not None:
            feed(self._write)
        if self._held:
            self._write(b"")
        self._file.close()

    def close(self) -> None:
        """Close the input, if it is open."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        # The first data are written together with the line that starts the command. If the kernel
        # divides a write, the division is then not between two blocks of the stream.
        view = memoryview(self._held + data)
        self._held = b""
        while view:
            try:
                written = os.write(self._file.fileno(), view)
            except BlockingIOError:
                if not self._poll.poll(_CHECK_SECONDS * 1000):
                    self._check(self.fed)
                continue
            except BrokenPipeError as error:
                raise StreamCut from error
            self.fed += written
            view = view[written:]


class _Output:
    """The output of a command. It is logged while it arrives; the last lines are kept."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.count = 0
        self._file = process.stdout
        self._thread = threading.Thread(target=self._read, name="cvmfs-output", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Return the last lines, once the command has ended."""
        # The server mounts the repository again, and the client process may keep the pipe open.
        self._thread.join(_OUTPUT_SECONDS)
        if not self._thread.is_alive():
            self._file.close()
        return "\n".join(self._lines)

    def _read(self) -> None:
        for line in self._file:
            text = line.decode("utf-8", "replace").rstrip()
            _log.debug("%s: %s", COMMAND, text)
            self._lines.append(text)
            self.count += 1
