"""A fork server of `publisher.workers` whose workers misbehave on request.

A request is a file `probe` in the directory of the layer, or beside that of a worker which reads
contents: the name of a function below, and its arguments. It is called in the worker before the
layer is read.
"""

from __future__ import annotations

import builtins
import importlib
import io
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from publisher.layers.errors import LayerError
from publisher.workers import reading as real_reading
from publisher.workers import server as fork_server
from publisher.workers import worker as real_worker
from publisher.workers.frames import PART, frame, receive_with_files
from publisher.workers.surroundings import ADDRESS_SPACE
from tests.compromised import Target, results

COMMAND = (sys.executable, "-m", "tests.worker_server")

server: Any = fork_server
unpacking: Any = importlib.import_module("publisher.layers.unpack")
worker: Any = real_worker
reading: Any = real_reading

_STEPS = (
    *("mkdir", "unlink", "symlink", "link", "chmod", "chown", "utime", "mknod", "setxattr"),
    *("fchmod", "fchown", "write", "open", "chdir"),
)


def kill_at(step: str) -> None:
    """End the worker with SIGKILL before its operation with this number (from 1)."""
    left = int(step)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                end_by(str(int(signal.SIGKILL)))
            return call(*arguments, **named)

        return wrapper

    for name in _STEPS:
        setattr(os, name, counted(getattr(os, name)))
    io.open = builtins.open = counted(io.open)
    worker._received = counted(worker._received)
    worker.encode_result = counted(worker.encode_result)
    for name in ("file", "answer"):
        setattr(reading.Sender, name, counted(getattr(reading.Sender, name)))
    reading.confine = counted(reading.confine)


def end_by(number: str) -> None:
    """End the worker by a signal."""
    os.kill(os.getpid(), int(number))


def hang() -> None:
    """Wait forever."""
    while True:
        time.sleep(1)


def multiply() -> None:
    """Start processes that leave the session and lose their parents; note their numbers."""
    for _ in range(2):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
            with open("pids", "a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(600)
            os._exit(0)
    while not Path("pids").exists() or len(Path("pids").read_text().splitlines()) < 4:
        time.sleep(0.01)


def kill_after_multiplying() -> None:
    """Start processes, and end by SIGKILL."""
    multiply()
    end_by(str(int(signal.SIGKILL)))


def fail() -> None:
    """Raise an error that no code expects."""
    raise ZeroDivisionError("on purpose")


def describe(_: object) -> None:
    """Answer with what a worker has before it is confined: descriptors, environment, session."""
    opened = [number for number in range(256) if _is_open(number)]
    private = [
        int(line.split()[1])
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines()
        if line.startswith("Private_Dirty")
    ]
    own = {
        "descriptors": {each: os.readlink(f"/proc/self/fd/{each}") for each in opened},
        "environment": dict(os.environ),
        "session": os.getsid(0),
        "pid": os.getpid(),
        "parent": os.getppid(),
        "private_kilobytes": private[0],
        "modules": sorted(sys.modules),
    }
    raise LayerError("described", why=json.dumps(own))


def exhaust_memory() -> None:
    """Need more memory than the worker may use."""
    _ = bytearray(ADDRESS_SPACE)


def attack(target: str) -> None:
    """Answer with the results of what a compromised worker tries."""
    raise LayerError("attacked", why=json.dumps(results(Target.from_json(target))))


def answer(text: str) -> None:
    """Send `text` as the answer, and end."""
    os.write(3, frame(text.encode()))
    os._exit(0)


def send_parts(text: str) -> None:
    """Send parts, each with its kind and number, and more bytes; then end."""
    for kind, number, data in json.loads(text):
        os.write(3, PART.pack(kind, number) + data.encode())
    os._exit(0)


def change_contents(old: str, new: str) -> None:
    """Replace a text in what is sent of the contents."""
    flush = reading.Sender._flush

    def changed(sender: Any) -> None:
        sender._held = sender._held.replace(old.encode(), new.encode())
        flush(sender)

    reading.Sender._flush = changed


def flood() -> None:
    """Send more than an answer may have."""
    channel = socket.socket(fileno=3)
    while True:
        channel.sendall(frame(bytes(2**21)))


def leave(name: str, target: str) -> None:
    """Unpack the layer, and then replace one of its files by a symlink."""
    finish = worker.encode_result

    def replaced(unpacked: Any, lacking: Any) -> Any:
        Path(name).rename("temporary/old")
        Path(name).symlink_to(target)
        return finish(unpacked, lacking)

    worker.encode_result = replaced


def forge(old: str, new: str) -> None:
    """Write another text in the index."""
    write = unpacking.write_index

    def forged(file: Any, header: Any, lines: Any) -> None:
        write(file, header, (line.replace(old, new) for line in lines))

    unpacking.write_index = forged


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _work(channel: socket.socket) -> None:
    message, files = receive_with_files(channel, 2)
    worker.receive_with_files = lambda *_: (message, files)
    request = json.loads(message)
    if "contents" in request:
        probe = Path(request["contents"]).parent / "probe"
        module, function = reading, "read_contents"
    else:
        probe = Path(request["directory"]) / "probe"
        module, function = worker, "unpack_layer"
    if probe.exists():
        unpack = getattr(module, function)

        def probed(*arguments: Any, **named: Any) -> Any:
            if name != "kill_at":
                globals()[name](*words)
            return unpack(*arguments, **named)

        name, *words = json.loads(probe.read_text())
        if name == "describe":
            module.confine = describe
        else:
            setattr(module, function, probed)
        if name == "kill_at":
            kill_at(*words)
    worker.work(channel)


if __name__ == "__main__":
    server.work = _work
    server.serve(socket.socket(fileno=int(sys.argv[1])))
