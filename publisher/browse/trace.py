"""Run a program of a published image, and find out which files of the image it opens."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.runtimes import launch, tracing
from publisher.runtimes.launch import Start
from publisher.runtimes.tracing import Access
from publisher.tree.hot_files import HotFile

_HIDDEN = ("proc", "dev", "tmp")
"""Where the sandbox mounts other file systems than the image."""

_PACKAGES = {"strace": "strace", "bwrap": "bubblewrap"}
_MAX_LINKS = 40
_MAX_INTERPRETERS = 5


class CannotTrace(PublisherError):
    """An image cannot be traced: a program is missing, or the probe failed.

    `image` is its published name, `code` the exit code of the probe, or None.
    """

    def __init__(self, image: str, *, why: str, hint: str = "", code: int | None = None) -> None:
        super().__init__(f"cannot trace {image}", why=why, hint=hint)
        self.image = image
        self.code = code


@dataclass(frozen=True, slots=True)
class Traced:
    """The files of the image that the program opened, in the order of first opening.

    `program` is the path of its executable.
    """

    files: tuple[HotFile, ...]
    program: str


def require_programs(image: str) -> None:
    """Raise CannotTrace unless this machine has strace and bubblewrap."""
    missing = [program for program in _PACKAGES if shutil.which(program) is None]
    if missing:
        packages = " ".join(_PACKAGES[program] for program in missing)
        why = f"not installed: {', '.join(missing)}"
        raise CannotTrace(image, why=why, hint=f"apt-get install {packages}")


def trace(image: str, start: Start, timeout: float | None = None) -> Traced:
    """Run the program with bubblewrap, without privileges, and return the files that it opens.

    Its standard input is empty, and its output goes to stderr.

    Args:
        image: The published name, for errors.
        start: The program; its root is the flat image on this machine.
        timeout: The seconds after which the program is ended; what it opened until then counts.

    Raises:
        CannotTrace: The program did not start, or failed.
    """
    with tempfile.TemporaryDirectory(prefix="publisher-trace-") as directory:
        log = Path(directory, "log")
        code = _run(start, log, timeout)
        with log.open("rb") as lines:
            found = _Image(start.root).files(tracing.accesses(lines), start.directory)
    if code != 0 and not found:
        why = f"the sandbox did not start the program; it ended with exit code {code}"
        hint = "publisher run --with bwrap starts it without strace"
        raise CannotTrace(image, why=why, hint=hint, code=code)
    if code != 0:
        why = f"the program ended with exit code {code}"
        hint = "trace a command that succeeds, since one that fails may open other files"
        raise CannotTrace(image, why=why, hint=hint, code=code)
    if not found:
        raise CannotTrace(image, why="the program opened no file of the image")
    return Traced(tuple(found.values()), next(iter(found)))


def _run(start: Start, log: Path, timeout: float | None) -> int:
    """Run the program, and return its exit code; 0 if it was ended by the timeout."""
    log.touch()
    sandbox, *options = launch.bubblewrap(start)
    command = tracing.strace([sandbox, "--die-with-parent", *options], str(log))
    if shutil.which("setpriv"):  # of util-linux: nothing survives a publisher that is killed
        command = ["setpriv", "--pdeathsig", "KILL", *command]
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2)
    except OSError as error:
        if error.errno == errno.E2BIG:
            raise launch.too_long(start) from error
        raise
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return 0
    finally:
        _end(process, log)


def _end(process: subprocess.Popen[bytes], log: Path) -> None:
    """End the sandbox, with all its processes, and wait until the log is complete."""
    while process.poll() is None:
        with log.open("rb") as file:
            sandbox = tracing.first_process(file.read(32))
        if sandbox is not None:
            with suppress(ProcessLookupError):
                os.kill(sandbox, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)


class _Image:
    """The root file system of an image at the path `root` of this machine."""

    def __init__(self, root: str) -> None:
        self._root = root

    def files(self, accesses: Iterable[Access], directory: str) -> dict[str, HotFile]:
        """Return the regular files of the image among `accesses`, by path.

        `directory` is the working directory of the program.
        """
        found: dict[str, HotFile] = {}
        for access in accesses:
            for path in self._paths(access, directory):
                file = self._file(path) if path not in found else None
                if file is not None:
                    found[path] = file
        return found

    def _paths(self, access: Access, directory: str) -> Iterator[str]:
        if not access.executed:
            yield access.path.lstrip("/")
            return
        path = self._executed(access, directory)
        for _ in range(_MAX_INTERPRETERS):
            if self._file(path) is None:
                return
            yield path
            interpreter = self._interpreter(path)
            if not interpreter.startswith("/"):
                return
            path = self._real(interpreter)

    def _executed(self, access: Access, directory: str) -> str:
        """Return the path of an executed file, in the first directory that has it."""
        if access.path.startswith("/"):
            return self._real(access.path)
        for each in (*access.directories, directory):
            path = self._real(f"{each}/{access.path}")
            if self._file(path) is not None:
                return path
        return access.path

    def _real(self, path: str) -> str:
        """Return the path from the root of the image, without symlinks and "..".

        A path in a circle of symlinks is returned as it is.
        """
        done: list[str] = []
        waiting = path.split("/")[::-1]
        links = 0
        while waiting and links <= _MAX_LINKS:
            part = waiting.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = done[:-1]
                continue
            done.append(part)
            with suppress(OSError):
                target = os.readlink(self._place("/".join(done)))
                done = [] if target.startswith("/") else done[:-1]
                waiting += target.split("/")[::-1]
                links += 1
        return "/".join(done)

    def _file(self, path: str) -> HotFile | None:
        """Return the regular file of the image at `path`, which has no symlinks, or None."""
        if path.partition("/")[0] in _HIDDEN:
            return None
        try:
            status = os.lstat(self._place(path))
        except (OSError, ValueError):
            return None
        return HotFile(path, status.st_size) if stat.S_ISREG(status.st_mode) else None

    def _interpreter(self, path: str) -> str:
        try:
            with Path(self._place(path)).open("rb") as file:
                return tracing.interpreter(file)
        except OSError:
            return ""  # executable, and not readable

    def _place(self, path: str) -> str:
        return f"{self._root}/{path}"


def within_limit(
    files: Sequence[HotFile], limit: int
) -> tuple[tuple[HotFile, ...], tuple[HotFile, ...]]:
    """Divide `files` into those that have `limit` bytes at most together, and the others.

    A file that is opened earlier has precedence.
    """
    kept, left_out, size = [], [], 0
    for file in files:
        if size + file.size <= limit:
            kept.append(file)
            size += file.size
        else:
            left_out.append(file)
    return tuple(kept), tuple(left_out)
