"""Call functions that only read in several processes, since one interpreter uses one processor.

These processes are copies of this one, and are trusted: they parse nothing that unpacking has not
checked. What fails in one of them, or ends it, is done again in this process, which raises errors.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from publisher.lazy import dataclass
from publisher.sandbox import end_with_parent, threads

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_T = TypeVar("_T")


def call_all(
    calls: Sequence[Callable[[], _T]], processes: int, begun: Callable[[int], None]
) -> list[_T]:
    """Return the results of all `calls`, in their order.

    Args:
        calls: Functions that change nothing, and whose results can be pickled.
        processes: In how many processes; with fewer than two, in this one. One with several threads
            cannot be copied, and does everything itself.
        begun: Called in this process with the number of each call before it begins.

    Raises:
        Exception: What a call raises.
    """
    count = min(processes, len(calls)) if threads() == 1 else 1
    results: dict[int, _T] = {}
    waiting = deque(range(len(calls)))
    if count > 1:
        results = dict(_in_processes(calls, count, waiting, begun))
    for number, call in enumerate(calls):
        if waiting and waiting[0] == number:
            begun(waiting.popleft())
        if number not in results:
            results[number] = call()
    return [results[number] for number in range(len(calls))]


@dataclass(slots=True)
class _Process:
    """A process, and the number of the call that it is doing."""

    pid: int
    connection: Connection
    number: int = -1


def _in_processes(
    calls: Sequence[Callable[[], _T]],
    count: int,
    waiting: deque[int],
    begun: Callable[[int], None],
) -> Iterator[tuple[int, _T]]:
    """Yield numbers and results of calls, which are taken from `waiting`; raise what one raises."""
    from multiprocessing.connection import wait  # long to load, and seldom needed

    running: dict[Connection, _Process] = {}

    def give(process: _Process) -> None:
        if not waiting:
            del running[process.connection]
            _end(process)
            return
        process.number = waiting.popleft()
        begun(process.number)
        with suppress(BrokenPipeError):  # it was killed, which is noticed below
            process.connection.send(process.number)

    try:
        with suppress(OSError):  # as many processes or open files as there may be: fewer do it
            for _ in range(count):
                process = _start(calls, [each.connection for each in running.values()])
                running[process.connection] = process
        for process in tuple(running.values()):
            give(process)
        while running:
            ready = wait(tuple(running))
            for process in [each for each in running.values() if each.connection in ready]:
                try:
                    is_done, result = process.connection.recv()
                except (EOFError, OSError):  # it was killed
                    del running[process.connection]
                    _end(process)
                    continue
                yield process.number, result if is_done else calls[process.number]()
                give(process)
    finally:
        for process in running.values():
            os.kill(process.pid, signal.SIGKILL)
            _end(process)


def _start(calls: Sequence[Callable[[], object]], others: Iterable[Connection]) -> _Process:
    from multiprocessing import Pipe

    connection, its_end = Pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        its_end.close()
        return _Process(pid, connection)
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # this process' parent ends it
        end_with_parent(parent)
        for each in (connection, *others):  # else their processes would not notice the end
            each.close()
        _serve(calls, its_end)
    finally:
        os._exit(0)


def _serve(calls: Sequence[Callable[[], object]], connection: Connection) -> None:
    """Do the calls whose numbers arrive, until the other end is closed."""
    while True:
        try:
            number = connection.recv()
        except EOFError:
            return
        try:
            result = True, calls[number]()
        except Exception:  # noqa: BLE001 - the parent does the call again, and raises it
            result = False, None
        connection.send(result)


def _end(process: _Process) -> None:
    """Wait until a process has ended that was killed, or whose input ends."""
    process.connection.close()
    os.waitpid(process.pid, 0)
