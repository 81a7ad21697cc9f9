"""Forks a child for each `publisher` command: tests start hundreds, and imports take most of that.

`tests.command` starts one server per test process. The server imports every command once and runs
none itself, so that each child is in the state of a process that has just started. A request is a
JSON object with "arguments", "cwd" and "env", and the child's three standard streams as file
descriptors; the answers are the child's process ID, then its exit code, a line each.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import socket
import sys
import threading
from typing import Any

from tests.preloading import load_package

MAX_REQUEST = 1 << 20


def serve(channel: socket.socket) -> None:
    """Answer requests until the client has gone; in a child, become the command."""
    load_package()
    gc.collect()
    gc.freeze()  # so that children copy less memory
    while True:
        data, streams, _, _ = socket.recv_fds(channel, MAX_REQUEST, 3)
        if not data:
            return
        child = os.fork()
        if child == 0:
            channel.close()
            become_command(json.loads(data), streams)
        for stream in streams:
            os.close(stream)
        channel.sendall(f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        channel.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def become_command(request: dict[str, Any], streams: list[int]) -> None:
    """Run the command as a process that was started with these arguments would."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.argv = ["publisher", *request["arguments"]]
    try:
        importlib.import_module("publisher.cli.main").main()
    except SystemExit as end:
        leave(end)


def leave(end: SystemExit) -> None:
    """End as Python does, but leave the memory to the kernel.

    Python would delete every object of the package one by one, and to do so copy all the memory
    that the process shares with the server: that takes longer than most commands.
    """
    code = end.code
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        code = 120  # Python's own for streams that cannot be flushed
    os._exit((code or 0) & 0xFF)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
