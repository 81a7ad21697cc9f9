"""Runs `publisher` commands in forked children that are killed, or fail, at a chosen operation.

A process of its own, started by `tests.transactions.client`: it imports everything once, and then
forks for each command, which saves starting Python a thousand times. Reads a request per line (a
JSON object), and answers each with one.

Operations are the calls that change the file system below `root`, whatever thread makes them; and
the beginning, each write to, and the end of a `cvmfs_server` command. With worker processes, what
these do is not counted, but each step of the exchange with them. The functions of `os`, `io.open`,
the two calls made through ctypes, the one that runs the server and those that use workers are
replaced by ones that count first; the command itself knows nothing of it.

Processes that outlive the process that started them become children of this one, which is asked
about them with the mode "left".
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from publisher.sandbox import adopt_orphans, children
from tests.gathering import GATHER, gather_commits
from tests.preloading import load_package
from tests.transactions.recorder import Recorder

_T = TypeVar("_T")
_GO = b"go\n"
_PIPE_PIECE = 64 * 1024 - 1
"""Not a multiple of a tar block, like the writes of the publisher."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_BY_PATH = (
    *("mkdir", "rmdir", "unlink", "remove", "symlink", "rename", "replace", "link"),
    *("chmod", "chown", "utime", "truncate", "setxattr", "removexattr", "mknod", "mkfifo"),
)
_BY_DESCRIPTOR = ("fchmod", "fchown", "ftruncate", "write", "fsync", "posix_fallocate")
_NOTHING = {"operations": 0, "failed": "", "served": [], "attended": [], "left": []}
_OF_WORKERS = (
    ("fork_server", "ForkServer", ("start", "_fork")),
    ("fork_server", "Worker", ("end", "close")),
    ("conversation", "Exchange", ("_send", "_end_blob", "_receive")),
    ("contents", "Contents", ("begin", "receive", "_received")),
    ("calls", "", ("_start", "_end")),
)
"""The steps of the exchange with worker processes: module, class, functions."""
_END_SECONDS = 60
_PLACE = {"symlink": 1, "rename": 1, "replace": 1, "link": 1}
"""Which argument is the place that changes, where it is not the first."""


class Faults:
    """Counts operations below `root`, and acts by `mode` at the `at`-th (from 1).

    "count" nothing; "kill" end the process before the operation; "fail" raise OSError(code), once;
    "broken" raise it from then on; "never" raise it for all operations called `only`. With
    "record" the operations are written down in the file `only`. With
    "snapshot" a copy of the repository is made beside it whenever a commit is complete.

    Before each operation in `copies`, a copy of the repository is made beside it: what a kill would
    leave. Operations below `root` then wait for each other, so that none changes what is copied.
    """

    def __init__(
        self, root: str, mode: str, at: int, code: int, only: str, copies: Collection[int] = ()
    ) -> None:
        self.count = 0
        self.failed = ""
        self.served: list[int] = []
        self.attended: list[int] = []
        self.recorder: Recorder | None = None
        self._root = root
        self._mode = mode
        self._at = at
        self._code = code
        self._only = only
        self._copies = frozenset(copies)
        self._lock = threading.RLock()
        self._serving = 0
        self._workers = 0

    def around(self, name: str, place: str, source: str, call: Callable[[], _T]) -> _T:
        """Execute an operation, after counting it."""
        with self._lock if self._copies and self._is_below_root(place) else nullcontext():
            self.step(name, place)
            if self.recorder is None:
                return call()
            return self.recorder.around(name, place, source, call)

    def _is_below_root(self, place: str) -> bool:
        return place == self._root or place.startswith(f"{self._root}/")

    def step(self, name: str, place: str) -> None:
        is_stream = self._serving and place.startswith("pipe:")
        if not is_stream and not self._is_below_root(place):
            return
        with self._lock:
            self.count += 1
            if is_stream or name in ("server", "served"):
                self.served.append(self.count)
            if self._workers or name == "worker":
                self.attended.append(self.count)
            if self.count in self._copies:
                self._copy()
            reached = self.count == self._at or (self.count > self._at and self._mode == "broken")
            if reached and self._mode == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        if self._mode == "snapshot" and name == "unlink" and place.endswith("/journal.json"):
            self._copy()
        is_of_system = name != "worker"  # the exchange with workers has errors of its own
        if (reached and is_of_system and self._mode in ("fail", "broken")) or (
            self._mode == "never" and name == self._only
        ):
            self.failed = self.failed or name
            raise OSError(self._code, os.strerror(self._code), place)

    def _copy(self) -> None:
        if not os.path.exists(self._root):
            return
        subprocess.run(["cp", "-a", self._root, f"{self._root}.{self.count}"], check=True)

    def install(self) -> None:
        for name in _BY_PATH:
            setattr(os, name, self._by_path(name, getattr(os, name)))
        for name in _BY_DESCRIPTOR:
            setattr(os, name, self._by_descriptor(name, getattr(os, name)))
        os.open = self._os_open(os.open)
        io.open = builtins.open = self._io_open(io.open)
        disk = importlib.import_module("publisher.repository.disk")
        library = _LibC(disk._libc(), self)
        disk._libc = lambda: library  # type: ignore[attr-defined]
        server = importlib.import_module("publisher.repository.cvmfs.server").Server
        server.run = self._server_run(server.run)
        for name, kind, functions in _OF_WORKERS:
            module = importlib.import_module(f"publisher.workers.{name}")
            owner = getattr(module, kind) if kind else module
            for function in functions:
                setattr(owner, function, self._with_workers(function, getattr(owner, function)))

    def _by_path(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        position = _PLACE.get(name, 0)

        def wrapper(*arguments: Any, **named: Any) -> Any:
            directory = named.get("dst_dir_fd", named.get("dir_fd"))
            place = _resolve(arguments[position], directory)
            source = _resolve(arguments[0], named.get("src_dir_fd")) if position else ""
            return self.around(name, place, source, lambda: call(*arguments, **named))

        return wrapper

    def _by_descriptor(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **named: Any) -> Any:
            place = _resolve(arguments[0], None)
            # How often a pipe takes a part of a write depends on its reader: see _counted.
            if place.startswith("pipe:") and bytes(arguments[1]) != _GO:
                return call(*arguments, **named)
            return self.around(name, place, "", lambda: call(*arguments, **named))

        return wrapper

    def _os_open(self, call: Callable[..., int]) -> Callable[..., int]:
        def wrapper(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if not flags & _WRITING:
                return call(path, flags, mode, dir_fd=dir_fd)
            place = _resolve(path, dir_fd)
            return self.around("open", place, "", lambda: call(path, flags, mode, dir_fd=dir_fd))

        return wrapper

    def _io_open(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return call(file, mode, *arguments, **named)
            place = _resolve(file, None)
            return self.around("open", place, "", lambda: call(file, mode, *arguments, **named))

        return wrapper

    def _server_run(self, call: Callable[..., str]) -> Callable[..., str]:
        def wrapper(server: Any, arguments: Any, feed: Any = None) -> str:
            self._serving += 1
            try:
                self.step("server", self._root)
                output = call(server, arguments, self._counted(feed) if feed else None)
                self.step("served", self._root)
            finally:
                self._serving -= 1
            return output

        return wrapper

    def _with_workers(self, name: str, call: Callable[..., _T]) -> Callable[..., _T]:
        def wrapper(*arguments: Any, **named: Any) -> _T:
            self.step("worker", self._root)
            result = call(*arguments, **named)
            begins, ends = name in ("_fork", "_start"), name in ("close", "_end")
            with self._lock:
                self._workers += begins - ends
            if begins or ends:  # otherwise the next step begins from the same state
                self.step("worker", self._root)
            return result

        return wrapper

    def _counted(self, feed: Callable[[Callable[[bytes], None]], None]) -> Any:
        """A feed of a server's input that counts each piece of what it writes."""

        def feeding(write: Callable[[bytes], None]) -> None:
            def counting(data: bytes) -> None:
                for start in range(0, len(data), _PIPE_PIECE):
                    self.step("write", "pipe:")
                    write(data[start : start + _PIPE_PIECE])

            feed(counting)

        return feeding


class _LibC:
    """The C library, with the calls counted that change or sync a file system."""

    def __init__(self, libc: Any, faults: Faults) -> None:
        self._libc = libc
        self._faults = faults

    def syncfs(self, descriptor: int) -> int:
        return self._call("syncfs", _resolve(descriptor, None), descriptor)

    def renameat2(self, one: int, source: bytes, other: int, target: bytes, flags: int) -> int:
        place = os.fsdecode(target)
        return self._call("renameat2", place, one, source, other, target, flags)

    def _call(self, name: str, place: str, *arguments: Any) -> int:
        import ctypes

        source = os.fsdecode(arguments[1]) if name == "renameat2" else ""
        try:
            return self._faults.around(
                name, place, source, lambda: int(getattr(self._libc, name)(*arguments))
            )
        except OSError as error:
            ctypes.set_errno(error.errno or 0)
            return -1


def _resolve(path: Any, directory: int | None) -> str:
    """The absolute path that an operation is about."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    text = os.fsdecode(path)
    if text.startswith("/proc/self/fd/"):
        return os.readlink(text)
    if not os.path.isabs(text):
        above = os.readlink(f"/proc/self/fd/{directory}") if directory is not None else os.getcwd()
        text = os.path.join(above, text)
    return text


def run(request: dict[str, Any], answer: int) -> None:
    """In a child: become the command."""
    write = os.write
    os.environ.update(request["env"])
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faults = Faults(
        request["root"],
        request["mode"],
        request["at"],
        request["code"],
        request["only"],
        request["copies"],
    )
    faults.install()
    if request["mode"] == "record":
        faults.recorder = Recorder(request["root"], request["only"])
    code = 0
    for arguments in request["commands"]:
        if arguments[0] == GATHER:
            fails = request["mode"] in ("fail", "broken")
            gather_commits(int(arguments[1]), at_most=2 if fails else None)
            arguments = arguments[2:]
        sys.argv = ["publisher", *arguments]
        try:
            importlib.import_module("publisher.cli.main").main()
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 1
        sys.stdout.flush()
        sys.stderr.flush()
        if code:
            break
    said = {
        "operations": faults.count,
        "failed": faults.failed,
        "served": faults.served,
        "attended": faults.attended,
    }
    write(answer, json.dumps(said).encode())
    os._exit(code)


def warm_up(commands: list[list[str]]) -> None:
    """Do here, once, what every child would otherwise do when it starts."""
    for arguments in commands:
        sys.argv = ["publisher", *arguments]
        with contextlib.suppress(SystemExit):
            importlib.import_module("publisher.cli.main").main()
    assert threading.active_count() == 1, "a fork would lose what other threads do"
    gc.collect()
    gc.freeze()  # so that children copy less memory


def serve() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for the output of commands while they warm up
    load_package()
    commands = set[int]()
    adopt_orphans()
    for line in sys.stdin:
        request = json.loads(line)
        if request["mode"] == "left":
            print(json.dumps({**_NOTHING, "code": 0, "left": _left()}), file=answers, flush=True)
            continue
        if request["mode"] == "warm up":
            warm_up(request["commands"])
            print(json.dumps({**_NOTHING, "code": 0}), file=answers, flush=True)
            continue
        reading, writing = os.pipe()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        child = os.fork()
        if child == 0:
            os.close(reading)
            run(request, writing)
        commands.add(child)
        signal.signal(signal.SIGCHLD, lambda *_: _reap(children() - commands))
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            said = {**_NOTHING, **json.loads(pipe.read() or b"{}")}
        _, status = os.waitpid(child, 0)
        commands.remove(child)
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps({**said, "code": code}), file=answers, flush=True)


def _reap(orphans: Collection[int]) -> None:
    """Forget those of these processes that have ended; a server looks for its own processes."""
    for pid in orphans:
        with suppress(ChildProcessError):  # the handler of the signal was faster
            os.waitpid(pid, os.WNOHANG)


def _left() -> list[str]:
    """The command lines of the processes that outlive their parents, once they had time to end."""
    deadline = time.monotonic() + _END_SECONDS
    while (orphans := children()) and time.monotonic() < deadline:
        time.sleep(0.005)
        _reap(orphans)
    return [Path(f"/proc/{pid}/cmdline").read_text() for pid in orphans]


if __name__ == "__main__":
    serve()
