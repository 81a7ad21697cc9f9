"""Wait for other server transactions, and abort those of an interrupted publisher.

Before a command of this publisher can open a transaction, its process group is written to a file,
the note. If a publisher is killed, the note and perhaps an open transaction remain. The next
publisher waits until that process group has ended, and aborts the transaction. A transaction
without a matching note belongs to another user of the server, and is never changed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from publisher.codec import Codec, Malformed
from publisher.lazy import dataclass
from publisher.repository import RepositoryBusy
from publisher.repository.cvmfs.configuration import Configuration
from publisher.repository.cvmfs.progress import ServerStalled, describe_processes
from publisher.repository.cvmfs.server import FilesInUse, Server, TransactionOpen, holders_of
from publisher.repository.disk import sync_directory, sync_file, write_new_file

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0
_CLOCK_SECONDS = 5.0
"""How many seconds the server's lock may be newer than the note, if it names no process."""

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Note:
    """The process groups of this publisher's commands, and the time of the first one.

    `began` is in seconds since 1970.
    """

    pids: tuple[int, ...]
    began: float


_NOTE = Codec(_Note)


class Guard:
    """Runs server commands on one repository. Used under the writer lock only.

    Args:
        configuration: The configuration of the repository.
        note: The file for the process groups of this publisher's commands.
        wait: Seconds to wait for other transactions, leases, and processes that use the mount.
        notify: Called with a sentence when a wait begins.
        stop: Ends the waiting once it is set, as the time to wait does.
    """

    def __init__(
        self,
        configuration: Configuration,
        note: Path,
        wait: float,
        notify: Notify,
        stop: threading.Event | None = None,
    ) -> None:
        self._configuration = configuration
        self._note = note
        self._wait = wait
        self._notify = notify
        self._stop = stop or threading.Event()
        self.server = Server(configuration, started=self._started, wait=wait, notify=notify)

    def retry(self, command: Callable[[], object], *, stays_open: bool = False) -> None:
        """Run `command`; repeat it for up to `wait` seconds while something blocks it.

        The open transaction of a failed command is aborted at once. With `stays_open`, the command
        leaves its transaction open, which belongs to this publisher until `forget`.

        Raises:
            RepositoryBusy: Another transaction, lease or process still blocks it, or the server
                made no progress.
        """
        text = "waiting for another transaction, lease or open file"
        for pause in self._pauses(text, self._stop):
            try:
                with self._aborted_on_failure():
                    command()
                if not stays_open:
                    self.forget()
                return
            except (TransactionOpen, FilesInUse) as error:
                if pause is None:
                    raise RepositoryBusy(
                        error.what, why=error.why, hint=error.hint, holder=error.why
                    ) from error

    def wait_until_free(self) -> None:
        """Wait until no transaction is open and no process uses the mount.

        Raises:
            RepositoryBusy: This took more than `wait` seconds.
        """
        text = f"waiting for cvmfs:{self._configuration.name}: {{}}"
        for pause in self._pauses(text, self._stop):
            reason, hint = self._reason()
            if not reason:
                return
            if pause is None:
                raise RepositoryBusy(
                    f"cannot change cvmfs:{self._configuration.name}",
                    why=reason,
                    hint=hint,
                    holder=reason,
                )

    def recover(self, *, of_earlier_run: bool = False) -> None:
        """Abort the open transaction of a command of this publisher, or of an interrupted one.

        `stop` ends the wait for a command only with `of_earlier_run`: otherwise this run has begun
        the transaction, and does not leave it open.
        """
        note = self._read_note()
        if note is None:
            return
        text = "waiting for cvmfs_server of an interrupted run"
        for pause in self._pauses(text, self._stop if of_earlier_run else threading.Event()):
            alive = [group for group in note.pids if _is_alive(group)]
            if not alive:
                break
            if pause is None:
                holder = (
                    "cvmfs_server of an interrupted run is still running: "
                    f"{describe_processes(alive[0])}"
                )
                raise RepositoryBusy(
                    f"cannot change cvmfs:{self._configuration.name}",
                    why=holder,
                    holder=holder,
                    hint=f"wait until it ends, or end it: kill -9 -- -{alive[0]}; the next run "
                    "aborts its transaction",
                )
        if self._has_opened(note):
            server = Server(self._configuration, wait=self._wait, notify=self._notify)
            server.run(["abort", "-f", self._configuration.name])
        self.forget()

    def forget(self) -> None:
        """Record that this publisher has no open transaction."""
        self._note.unlink(missing_ok=True)

    @contextmanager
    def _aborted_on_failure(self) -> Iterator[None]:
        try:
            yield
        except ServerStalled:
            raise  # an abort would wait for the same process; the next run aborts
        except BaseException:
            self.recover()
            raise

    def _reason(self) -> tuple[str, str]:
        """Return why publishing is blocked, and a hint; "" if it is not."""
        name = self._configuration.name
        lock = self._configuration.lock
        if not self._configuration.is_gateway and lock.exists():
            try:
                since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(lock.stat().st_mtime))
                owner = f"user {lock.owner()}"
            except (OSError, KeyError):
                since, owner = "a moment ago", "another user"
            return (
                f"another transaction has been open since {since} (opened by {owner})",
                f"publish or abort it: cvmfs_server publish {name}, cvmfs_server abort {name}",
            )
        holders = holders_of(self._configuration.union)
        if holders:
            return (
                f"the mounted repository is in use: {'; '.join(holders[:5])}",
                "the server publishes only when no process has a file or its working directory "
                "there; end them, or wait longer with --wait",
            )
        return "", ""

    def _pauses(self, text: str, stop: threading.Event) -> Iterator[float | None]:
        """Pace attempts: pause after each one; yield None if the attempt is the last one.

        It is if the time to wait is over, or `stop` is set.
        """
        deadline = time.monotonic() + self._wait
        pause = _FIRST_PAUSE
        announced = False
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or stop.is_set():
                yield None
                return
            yield pause
            if not announced:
                self._notify(text.format(self._reason()[0]) if "{}" in text else text)
                announced = True
            stop.wait(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _started(self, group: int) -> None:
        note = self._read_note() or _Note((), time.time())
        draft = self._note.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        note = _Note((*note.pids, group), note.began)
        write_new_file(draft, _NOTE.dump(note), mode=0o600)
        # An empty note after a power failure would leave the open transaction to the administrator.
        sync_file(draft)
        draft.rename(self._note)
        sync_directory(self._note.parent)

    def _read_note(self) -> _Note | None:
        try:
            return _NOTE.parse(self._note.read_bytes())
        except FileNotFoundError:
            return None
        except Malformed:
            # The note is written atomically, so this is damage. The owner of the transaction is
            # unknown.
            self.forget()
            return None

    def _has_opened(self, note: _Note) -> bool:
        """Return whether there is an open transaction, and `note` describes it."""
        try:
            text = self._configuration.lock.read_text().strip()
            opened = self._configuration.lock.stat().st_mtime
        except FileNotFoundError:
            return False
        if text.isdecimal():
            return int(text) in note.pids
        return abs(opened - note.began) <= _CLOCK_SECONDS


def _is_alive(group: int) -> bool:
    """Return whether a process of that process group is running, and not a zombie."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
            state, _, process_group, *_ = text.rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if int(process_group) == group and state not in "ZX":
            return True
    return False
