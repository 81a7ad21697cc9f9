"""The writer lock, which ends with its process, and the record of its holder."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.codec import Codec, Malformed
from publisher.lazy import dataclass
from publisher.repository import RepositoryBusy
from publisher.repository.disk import open_file, write_new_file
from publisher.times import format_time, utc_now

if TYPE_CHECKING:
    import filelock

_LOCK = "lock"


@dataclass(frozen=True, slots=True)
class _Holder:
    """The record of the process that holds the lock, for the messages of those that wait."""

    pid: int
    host: str
    since: datetime
    purpose: str


_HOLDER = Codec(_Holder)


def new_lock(path: Path, *, thread_local: bool = True) -> filelock.BaseFileLock:
    """Return a lock that the kernel releases when its process ends, in any way.

    Acquiring it on a file system without locks raises OSError: a lock that consists of the
    existence of a file would outlive a killed process.
    """
    import filelock  # long to load, and readers need no lock

    return filelock.FileLock(path, mode=0o600, thread_local=thread_local, fallback_to_soft=False)


def is_writing(directory: Path) -> bool:
    """Return whether a process holds the writer lock in `directory` now.

    For readers: it does not wait, and is False if that cannot be determined.
    """
    try:
        descriptor = os.open(directory / _LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES)
    finally:
        os.close(descriptor)
    return False


class WriterLock:
    """The exclusive right to change one repository, between processes and between threads.

    Args:
        directory: The repository's state directory.
        wait: How many seconds to wait for another process.
        on_wait: Called once with a message that names the holder, when waiting begins.
        stop: Ends the waiting once it is set, as the time to wait does.
    """

    def __init__(
        self,
        directory: Path,
        wait: float,
        on_wait: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._path = directory / _LOCK
        self._holder = directory / "holder.json"
        self._wait = wait
        self._on_wait = on_wait
        self._stop = stop
        # Threads of this process wait here, without polling the file.
        self._threads = threading.Lock()

    @contextmanager
    def hold(self, purpose: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock during the block; the value is True.

        Args:
            purpose: Shown to processes that wait ("ingest of …").
            wait: If False, do not wait; the value is then False if another holds the lock.

        Raises:
            RepositoryBusy: Another process still holds the lock after the time to wait.
        """
        if not self._threads.acquire(blocking=wait):
            yield False
            return
        try:
            lock = new_lock(self._path)
            held = self._acquire(lock, wait)
            try:
                if held:
                    self._write_holder(purpose)
                yield held
            finally:
                if held:
                    lock.release()
        finally:
            self._threads.release()

    def _acquire(self, lock: filelock.BaseFileLock, wait: bool) -> bool:
        import filelock

        try:
            lock.acquire(timeout=0)
            return True
        except filelock.Timeout:
            if not wait:
                return False
        if self._on_wait is not None and self._wait > 0:
            self._on_wait(f"waiting for the repository: {self._describe_holder()}")
        began = time.monotonic()
        try:
            lock.acquire(timeout=self._wait, cancel_check=self._stop.is_set if self._stop else None)
            return True
        except filelock.Timeout as error:
            self._wait = 0  # the other threads of this run need not wait as long again
            holder = self._describe_holder()
            raise RepositoryBusy(
                f"cannot change {self._path.parents[2]}",
                why=f"{holder}; waited {time.monotonic() - began:.0f} s",
                hint="try again later, or wait longer with --wait SECONDS",
                holder=holder,
            ) from error

    def _write_holder(self, purpose: str) -> None:
        holder = _Holder(os.getpid(), socket.gethostname(), utc_now(), purpose)
        draft = self._holder.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        write_new_file(draft, _HOLDER.dump(holder), mode=0o600)
        draft.rename(self._holder)

    def _describe_holder(self) -> str:
        try:
            with open_file(self._holder) as file:
                holder = _HOLDER.parse(file.read())
            return (
                f"process {holder.pid} on {holder.host} has held it since "
                f"{format_time(holder.since)} for the {holder.purpose}"
            )
        except (OSError, Malformed):
            return "another process holds it"
