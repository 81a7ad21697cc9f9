"""Child processes of tests: started, waited for until they answer, and ended without remains."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

STARTUP_SECONDS = 60.0
SHUTDOWN_SECONDS = 20.0


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    log: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in a process group of its own: the block begins once `ready` returns True.

    Its output goes to `log`, whose end is shown when it dies early. Should this very process be
    killed, the kernel ends the command.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, ready, log)
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask `process` to stop, and kill what is left of it and its descendants after a while."""
    family = descendants(process.pid)
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(SHUTDOWN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid, start in family.items():
        if _is_alive(pid, start):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + STARTUP_SECONDS
    while any(_is_alive(*member) for member in family.items()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"what {process.args!r} started cannot be killed: {family}")
        time.sleep(0.01)


def command_lines() -> dict[int, bytes]:
    """The words of each process, which are separated by null bytes."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # a process may end meanwhile
            found[int(directory.name)] = (directory / "cmdline").read_bytes()
    return found


def processes_naming(text: str) -> list[int]:
    """The processes, other than this one, whose command line contains `text`."""
    others = command_lines()
    others.pop(os.getpid())
    return [process for process, words in others.items() if text.encode() in words]


def _wait_until_ready(
    process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path
) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while not ready():
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} does not answer:\n{_tail(log)}")
        time.sleep(0.05)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]


def descendants(root: int) -> dict[int, str]:
    """The start time of each living descendant of `root`, by process id."""
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(directory.name))
        if fields:
            children.setdefault(int(fields[1]), []).append(int(directory.name))
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found[child] = _start_time(child)
            waiting.append(child)
    return found


def _is_alive(pid: int, start: str) -> bool:
    """Whether it is the same process still (not a later one with its number), and no zombie."""
    fields = _stat(pid)
    return bool(fields) and fields[19] == start and fields[0] != "Z"


def _start_time(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if fields else ""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the program's name (proc(5)): state, parent, …"""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []  # it has ended
    return text.rpartition(")")[2].split()


def wait_until(condition: Callable[[], bool], seconds: float = STARTUP_SECONDS) -> None:
    """Return as soon as `condition` holds; fail if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
