"""A snapshotter that kills itself before one of its steps.

A step is a change of a file, a statement for SQLite, or the end of a transaction.

    python -m tests.snapshotter_kill 17 --tree …     publisher snapshotter, killed before step 17
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


if __name__ == "__main__":
    from publisher.cli.main import main

    kill_at(int(sys.argv[1]))
    sys.argv[1:2] = ["snapshotter"]
    main()
