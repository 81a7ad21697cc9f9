"""A snapshotter that kills itself before one of its steps.

A step is a change of a file, a statement for SQLite, or the end of a transaction.

    python -m tests.snapshotter_kill --tree …

For each number that is a line of its standard input, it forks a `publisher snapshotter` with these
arguments that is killed before that step, and prints its exit code. So nothing is imported again.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from publisher.cli.main import main
from publisher.snapshotter.store import Store

_FILE_EVENTS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.chown")


def kill_at(number: int) -> None:
    """Let this process kill itself before its step `number`."""
    steps = itertools.count(1)

    def step() -> None:
        if next(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if event in _FILE_EVENTS:
            step()

    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda statement: step())
        return connection

    transaction = Store.transaction

    @contextmanager
    def counted(self: Store) -> Iterator[None]:
        with transaction(self):
            yield
        step()

    sqlite3.connect = traced  # type: ignore[assignment]
    Store.transaction = counted  # type: ignore[method-assign]
    sys.addaudithook(audit)


def serve(arguments: list[str]) -> None:
    """Fork a snapshotter for each number that is asked for."""
    for name in ("publisher.cli.snapshotter", "publisher.snapshotter.service"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become_snapshotter(int(line), arguments)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _become_snapshotter(step: int, arguments: list[str]) -> NoReturn:
    kill_at(step)
    sys.argv = ["publisher", "snapshotter", *arguments]
    try:
        main()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1:])
