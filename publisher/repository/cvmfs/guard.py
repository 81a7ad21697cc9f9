"""Our server transactions and those of others: what is ours is cleared, theirs is waited for.

Before a command of ours can open a transaction, a note says which process group it is. A publisher
that was killed leaves the note, and perhaps an open transaction: the next one waits for the end of
that group and aborts what it left. A transaction without a fitting note is somebody else's, and is
never touched.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from publisher.repository import RepositoryBusy
from publisher.repository.cvmfs.configuration import Configuration
from publisher.repository.cvmfs.server import (
    FilesInUse,
    Server,
    TransactionOpen,
    holders_of,
)
from publisher.repository.disk import sync_directory, write_new_file

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0
_CLOCK_SECONDS = 5.0
"""How much later than our note the server's lock may be, where it does not say whose it is."""

Say = Callable[[str], None]


class Guard:
    """The right to run server commands on one repository. Used under the writer lock only."""

    def __init__(self, configuration: Configuration, note: Path, wait: float, say: Say) -> None:
        self._configuration = configuration
        self._note = note
        self._wait = wait
        self._say = say
        self.server = Server(configuration.name, self._started)

    def patiently(self, command: Callable[[], object], *, stays_open: bool = False) -> None:
        """Run `command`, again while others hold what it needs, for as long as we may wait.

        What it leaves open when it fails is aborted at once. A transaction that `stays_open` after
        it is ours until `forget`.
        """
        for pause in self._pauses("waiting for another transaction, lease or open file"):
            try:
                with self._aborted_on_failure():
                    command()
                if not stays_open:
                    self.forget()
                return
            except (TransactionOpen, FilesInUse) as error:
                if pause is None:
                    raise RepositoryBusy(error.what, why=error.why, hint=error.hint) from error

    def wait_until_free(self) -> None:
        """Return when no transaction is open and nobody uses the mount; RepositoryBusy if late."""
        for pause in self._pauses(f"waiting for cvmfs:{self._configuration.name}: {{}}"):
            reason, hint = self._reason()
            if not reason:
                return
            if pause is None:
                raise RepositoryBusy(
                    f"cannot change cvmfs:{self._configuration.name}", why=reason, hint=hint
                )

    def recover(self) -> None:
        """Clear what a command of ours, or of a publisher that was killed, left open."""
        note = self._read_note()
        if note is None:
            return
        groups = note["pids"]
        for pause in self._pauses("waiting for cvmfs_server of an interrupted run"):
            alive = [group for group in groups if _is_alive(group)]
            if not alive:
                break
            if pause is None:
                raise RepositoryBusy(
                    f"cannot change cvmfs:{self._configuration.name}",
                    why=f"cvmfs_server of an interrupted run (process {alive[0]}) still runs",
                    hint="let it end, or end it; the next run clears what it leaves",
                )
        if self._is_ours(note):
            Server(self._configuration.name).run(["abort", "-f", self._configuration.name])
        self.forget()

    def forget(self) -> None:
        """Nothing of ours is open any more."""
        self._note.unlink(missing_ok=True)

    @contextmanager
    def _aborted_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.recover()
            raise

    def _reason(self) -> tuple[str, str]:
        """Why nothing can be published now, and what helps; "" if nothing is in the way."""
        name = self._configuration.name
        lock = self._configuration.lock
        if not self._configuration.is_gateway and lock.exists():
            try:
                since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(lock.stat().st_mtime))
                owner = lock.owner()
            except (OSError, KeyError):
                since, owner = "just now", "somebody"
            return (
                f"a transaction that is not ours has been open since {since} ({owner})",
                f"publish or abort it: cvmfs_server publish {name}, cvmfs_server abort {name}",
            )
        holders = holders_of(self._configuration.mount)
        if holders:
            return (
                f"the mounted repository is in use: {'; '.join(holders[:5])}",
                "the server publishes only when no process has a file or its working directory "
                "there; end them, or wait longer with --wait",
            )
        return "", ""

    def _pauses(self, text: str) -> Iterator[float | None]:
        """Paces attempts: pauses after each one; gives None when the next would be the last."""
        deadline = time.monotonic() + self._wait
        pause = _FIRST_PAUSE
        said = False
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                yield None
                return
            yield pause
            if not said:
                self._say(text.format(self._reason()[0]) if "{}" in text else text)
                said = True
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _started(self, pid: int) -> None:
        note = self._read_note() or {"pids": [], "began": time.time()}
        draft = self._note.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        value = {"pids": [*note["pids"], pid], "began": note["began"]}
        write_new_file(draft, json.dumps(value).encode(), mode=0o600)
        draft.rename(self._note)
        sync_directory(self._note.parent)

    def _read_note(self) -> dict[str, Any] | None:
        try:
            value = json.loads(self._note.read_bytes())
            return {
                "pids": [int(pid) for pid in value["pids"]],
                "began": float(value["began"]),
            }
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            # Written whole, so a disk failed; who opened what is open cannot be told.
            self.forget()
            return None

    def _is_ours(self, note: dict[str, Any]) -> bool:
        """Whether the open transaction, if there is one, is that of the note."""
        try:
            text = self._configuration.lock.read_text().strip()
            opened = self._configuration.lock.stat().st_mtime
        except FileNotFoundError:
            return False
        if text.isdecimal():
            return int(text) in note["pids"]
        return -_CLOCK_SECONDS <= opened - float(note["began"]) <= _CLOCK_SECONDS


def _is_alive(group: int) -> bool:
    """Whether a process of that process group runs (what is dead and not waited for does not)."""
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            state, _, process_group, *_ = (process / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if int(process_group) == group and state not in "ZX":
            return True
    return False
