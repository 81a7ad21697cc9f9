"""Detect whether a server command makes progress, and what blocks it.

A publish or abort of the server ends with a remount, which waits for the end of the previous client
process. That process runs as long as any mount namespace (a container, an `unshare -m` shell) has
its mount.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from publisher.errors import printable
from publisher.lazy import dataclass
from publisher.repository import RepositoryBusy
from publisher.repository.cvmfs.configuration import Configuration

QUIET_SECONDS = 60.0
"""Seconds without progress after which a message describes the state of the command."""

LEAST_LIMIT_SECONDS = 150.0
"""The shortest time limit: the server itself waits 60 seconds before a forced remount."""

_MEASURES_PER_QUIET = 6
_BUSY_TICKS = os.sysconf("SC_CLK_TCK") // 2
_BUSY_BYTES = 1 << 20
"""Processor time and transferred bytes that count as progress; a polling loop uses less."""

_PROC = Path("/proc")
_SHOWN_COMMAND = 200


class ServerStalled(RepositoryBusy):
    """`cvmfs_server` made no progress for too long, and was killed. `processes` shows its tree."""

    def __init__(self, what: str, *, why: str, hint: str, processes: str) -> None:
        super().__init__(what, why=why, hint=hint)
        self.processes = processes


@dataclass(frozen=True, slots=True)
class _Process:
    """One process; `ticks` includes the time of its children that have ended."""

    pid: int
    parent: int
    session: int
    ticks: int


class Watch:
    """Watches the command `what`, whose process group and session are `group`.

    `limit` is the time without progress in seconds after which it is killed, at least
    LEAST_LIMIT_SECONDS. `notify` is called once with its state after QUIET_SECONDS without
    progress. Progress is any output or input, half a second of processor time, or a transfer of 1
    MiB.
    """

    def __init__(
        self,
        group: int,
        what: str,
        configuration: Configuration,
        limit: float,
        notify: Callable[[str], None],
    ) -> None:
        self._group = group
        self._what = what
        self._configuration = configuration
        self._limit = max(limit, LEAST_LIMIT_SECONDS)
        self._notify = notify
        self._seen: object = None
        self._used: tuple[int, int] | None = None
        self._since = self._measured = time.monotonic()
        self._announced = False

    def check(self, seen: object) -> None:
        """Compare the amounts of input and output `seen` so far with the last ones.

        It has to be called regularly.

        Raises:
            ServerStalled: There was no progress for too long.
        """
        now = time.monotonic()
        if seen != self._seen:
            self._seen, self._used = seen, None
            self._progressed(now)
            return
        if now - self._measured < QUIET_SECONDS / _MEASURES_PER_QUIET:
            return
        self._measured = now
        used = _usage(self._group)
        if self._used is None:
            self._used = used
        elif used[0] - self._used[0] >= _BUSY_TICKS or used[1] - self._used[1] >= _BUSY_BYTES:
            self._used = used
            self._progressed(now)
            return
        quiet = now - self._since
        if quiet >= self._limit:
            raise self._stalled(quiet)
        if quiet >= QUIET_SECONDS and not self._announced:
            self._announced = True
            self._notify(f"{self._what} has made no progress for {quiet:.0f} s: {self._describe()}")

    def _progressed(self, now: float) -> None:
        self._since = self._measured = now
        self._announced = False

    def _describe(self) -> str:
        return "; ".join([describe_processes(self._group), *mount_holders(self._configuration)])

    def _stalled(self, quiet: float) -> ServerStalled:
        holders = mount_holders(self._configuration)
        processes = describe_processes(self._group)
        ended = f"made no progress for {quiet:.0f} s and was ended"
        return ServerStalled(
            f"cannot change cvmfs:{self._configuration.name}",
            why="; ".join([f"{self._what} {ended}", processes, *holders]),
            hint=_hint(holders),
            processes=processes,
        )


def _hint(holders: list[str]) -> str:
    again = "run the command again, which aborts the open transaction"
    if holders:
        return f"end the processes that have the old mount, and {again}"
    look = "find what blocks it (cvmfs_config status, dmesg)"
    if os.geteuid() != 0:
        look += "; `publisher doctor` run by root finds mounts in other namespaces"
    return f"{look}, and {again}"


def describe_processes(group: int) -> str:
    """Return the process tree of the session `group`, parents first, in one line."""
    shown = []
    for process in _tree(group):
        place = _PROC / str(process.pid)
        command, waits = "", ""
        with suppress(OSError):
            words = (place / "cmdline").read_bytes().replace(b"\0", b" ")
            command = printable(words.decode("utf-8", "replace").strip()[:_SHOWN_COMMAND])
        with suppress(OSError):
            waits = (place / "wchan").read_text()
        where = f", waiting in {waits}" if waits not in ("", "0") else ""
        shown.append(f"process {process.pid} ({command or 'a process that has ended'}{where})")
    return " > ".join(shown) or "its processes have ended"


def mount_holders(configuration: Configuration) -> list[str]:
    """Return the other mount namespaces with a mount of the repository, one process for each.

    Only root sees the namespaces of other users.
    """
    places = {str(configuration.mount), str(configuration.union)}
    own = _namespace(os.getpid())
    seen = {own, ""}
    found = []
    for pid in sorted(_pids()):
        namespace = _namespace(pid)
        if namespace in seen:
            continue
        seen.add(namespace)
        with suppress(OSError):
            lines = (_PROC / str(pid) / "mountinfo").read_text().splitlines()
            points = {line.split()[4] for line in lines} & places
            name = printable((_PROC / str(pid) / "comm").read_text().strip())
            if points:
                found.append(
                    f"the mount namespace of process {pid} ({name}) has {min(points)} mounted"
                )
    return found


def _namespace(pid: int) -> str:
    try:
        return os.readlink(_PROC / str(pid) / "ns/mnt")
    except OSError:
        return ""


def _pids() -> Iterator[int]:
    return (int(path.name) for path in _PROC.iterdir() if path.name.isdecimal())


def _tree(group: int) -> list[_Process]:
    """Return the processes of the session `group` and all their descendants, parents first."""
    processes = {}
    for pid in sorted(_pids()):
        with suppress(OSError, ValueError, IndexError):
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            ticks = sum(map(int, fields[11:15]))
            processes[pid] = _Process(pid, int(fields[1]), int(fields[3]), ticks)
    found: dict[int, _Process] = {}
    grown = True
    while grown:
        grown = False
        for pid, process in processes.items():
            if pid not in found and (process.session == group or process.parent in found):
                found[pid] = process
                grown = True
    return list(found.values())


def _usage(group: int) -> tuple[int, int]:
    """Return the processor ticks and the bytes read and written by the session `group`."""
    ticks, transferred = 0, 0
    for process in _tree(group):
        ticks += process.ticks
        with suppress(OSError, ValueError, IndexError):
            lines = (_PROC / str(process.pid) / "io").read_text().splitlines()
            transferred += sum(int(line.split()[1]) for line in lines[:2])
    return ticks, transferred
