"""A fork server of `publisher.workers` whose workers misbehave on request.

A request is a file: the name of a function below, and its arguments. It is called in the worker
before the layer is read. After the name `once` it is called in one worker only. The file is `probe`
in the directory of the layer, or beside that of a worker which reads contents or links. In a
session, the file `unpack-DIGEST` or `contents-DIGEST` is for the workers of one layer.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from publisher.layers.errors import LayerError
from publisher.layers.index import read_header
from publisher.workers import linking as real_linking
from publisher.workers import reading as real_reading
from publisher.workers import server as fork_server
from publisher.workers import worker as real_worker
from publisher.workers.frames import PART, frame, receive_with_files
from publisher.workers.surroundings import ADDRESS_SPACE
from tests import hostile_memory
from tests.compromised import Target, results

COMMAND = (sys.executable, "-m", "tests.worker_server")

server: Any = fork_server
unpacking: Any = importlib.import_module("publisher.layers.unpack")
worker: Any = real_worker
reading: Any = real_reading
linking: Any = real_linking

_files: list[int] = []
"""The descriptors that the worker has received with its job."""

_OF_THE_SYSTEM = ("posix", "_io", "_socket", "socket", "sqlite3", "resource")
"""The modules whose functions, and the methods of whose objects, make system calls."""

_ONLY_READS = frozenset(
    (
        *("fileno", "fspath", "fstat", "getegid", "geteuid", "getpid", "getppid", "getsid"),
        *("isatty", "listdir", "listxattr", "lstat", "major", "makedev", "minor", "readable"),
        *("readlink", "scandir", "seekable", "stat", "statvfs", "sysconf", "tell", "writable"),
    )
)
"""Functions before which a kill leaves the same as before the next function."""


def kill_at(step: str) -> None:
    """End the worker with SIGKILL before its operation with this number (from 1).

    Operations are all calls that may change a file or send something, whichever code makes them:
    also those that confine the worker, and those that end it after the answer.
    """
    left = int(step)

    def count(_frame: object, event: str, called: Any) -> None:
        nonlocal left
        if event == "c_call" and _is_operation(called):
            left -= 1
            if not left:
                end_by(str(int(signal.SIGKILL)))

    threading.setprofile(count)  # for the thread that decompresses
    sys.setprofile(count)


def _is_operation(called: Any) -> bool:
    if called.__name__ in _ONLY_READS:
        return False
    subject = getattr(called, "__self__", None)
    if isinstance(subject, io.BytesIO | io.StringIO):
        return False
    is_method = subject is not None and not inspect.ismodule(subject)
    module = type(subject).__module__ if is_method else called.__module__
    return module in _OF_THE_SYSTEM


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


def attack_memory(attack: str = "") -> None:
    """Unpack the layer, and then misuse the memory for contents: see tests/hostile_memory.py.

    Without an attack, all are tried that are refused, and the results are left in a file.
    """
    finish = worker.encode_result

    def attacked(unpacked: Any, lacking: Any) -> Any:
        if attack:
            getattr(hostile_memory, attack)(_files[0])
        else:
            Path("attempts").write_text(json.dumps(hostile_memory.results(_files[0])))
        return finish(unpacked, lacking)

    worker.encode_result = attacked


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
    _files.extend(files)
    module, function, probe = _place(json.loads(message), files)
    if probe is not None:
        name, *words = json.loads(probe.read_text())
        if name == "once":
            probe.unlink()
            name, *words = words
        if name == "kill_at":
            kill_at(*words)
        elif name == "describe":
            module.confine = describe
        else:
            original = getattr(module, function)

            def probed(*arguments: Any, **named: Any) -> Any:
                globals()[name](*words)
                return original(*arguments, **named)

            setattr(module, function, probed)
    worker.work(channel)


def _place(request: dict[str, Any], files: Sequence[int]) -> tuple[Any, str, Path | None]:
    """The function that does a job, with its module, and the file of the request for its worker."""
    if "link" in request:
        root, destination = map(Path, request["link"][:2])
        probes: tuple[Path, ...] = (root / destination.with_name("probe"),)
        place = linking, "link_tree"
    elif "contents" in request:
        session = Path(request["contents"]).parent
        digest = read_header(io.BytesIO(os.pread(files[1], 2**20, 0))).digest
        probes = session / "probe", session / f"contents-{digest}"
        place = reading, "read_contents"
    else:
        directory = Path(request["directory"])
        session = directory.parent if request["form"] == "tree" else directory.parents[1]
        probes = directory / "probe", session / f"unpack-{request['descriptor'][1]}"
        place = worker, "unpack_layer"
    return *place, next((probe for probe in probes if probe.exists()), None)


if __name__ == "__main__":
    server.work = _work
    server.serve(socket.socket(fileno=int(sys.argv[1])))
