"""The child process of a job: it ends in order, when its host ends, and with all that it began."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from publisher.service.jobs import child as child_module
from publisher.service.jobs.child import Child
from publisher.service.jobs.output import Output
from tests.worker_stages import children

STUBBORN = """
import signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: print("received", number, flush=True))
print("ready", flush=True)
while True:
    time.sleep(0.1)
"""
ORDERLY = """
import signal, sys, time
assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
signal.signal(signal.SIGINT, lambda number, frame: sys.exit(130))
print("ready", flush=True)
time.sleep(100)
"""
INTERRUPTIBLE = """
import time
print("ready", flush=True)
time.sleep(100)
"""
LEAVES = """
import subprocess, sys
subprocess.Popen(["sleep", "100"])  # it holds the output open
print("done", file=sys.stderr)
sys.exit(3)
"""


def run(text: str, tmp_path: Path) -> tuple[int, list[str]]:
    """Run a program, and end it as soon as it is ready."""
    output = Output("gc", 100)
    messages: list[str] = []

    def meanwhile() -> bool:
        messages.extend(str(each["message"]) for each in output.take())
        return "ready" in messages

    code = Child([sys.executable, "-c", text], {}, tmp_path, output).wait(meanwhile)
    meanwhile()
    return code, messages


def test_a_child_that_does_not_end_receives_one_signal_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "PATIENCE", (0.3, 0.3, 0.0))
    code, messages = run(STUBBORN, tmp_path)
    assert code == -signal.SIGKILL
    assert messages == ["ready", "received 2", "received 15"]


def test_a_child_that_ends_in_order_receives_one_signal_also_if_its_host_blocks_them(
    tmp_path: Path,
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        assert run(ORDERLY, tmp_path) == (130, ["ready"])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_child_ends_in_order_also_if_its_host_ignores_the_signal(tmp_path: Path) -> None:
    """As a host does that a script starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code, _ = run(INTERRUPTIBLE, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == -signal.SIGINT


def test_processes_that_a_child_leaves_are_ended(tmp_path: Path) -> None:
    assert run(LEAVES, tmp_path) == (3, ["done"])


def test_a_child_ends_when_its_host_is_killed(tmp_path: Path) -> None:
    host = f"""
import sys
from pathlib import Path
from publisher.service.jobs.child import Child
from publisher.service.jobs.output import Output
from tests.worker_stages import children
child = Child(["/bin/sleep", "1000"], {{}}, Path({str(tmp_path)!r}), Output("gc", 10))
print(child._process.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", host], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        until = time.monotonic() + 60
        while b"sleep" not in _command_line(child):  # before, it is the launcher
            assert time.monotonic() < until
            time.sleep(0.05)
        process.kill()
        while _command_line(child):
            assert time.monotonic() < until
            time.sleep(0.05)


def _command_line(process: int) -> bytes:
    """The command of a process; nothing if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_a_child_whose_output_cannot_be_read_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # as Python does at the limit of the user

    before = set(children(os.getpid()))
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError):
        Child(["/bin/sleep", "1000"], {}, tmp_path, Output("gc", 10))
    assert set(children(os.getpid())) <= before
