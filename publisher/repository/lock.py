"""One writer at a time: a lock that ends with its process, and says who holds it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import filelock

from publisher.repository import RepositoryBusy
from publisher.repository.disk import write_new_file
from publisher.times import format_time

_LOCK = "lock"


def new_lock(path: Path, *, thread_local: bool = True) -> filelock.BaseFileLock:
    """A lock that the kernel takes back when its process ends, however it ends.

    Never one that only a file's existence says: that would outlive who was killed. A file system
    without locks is an OSError instead.
    """
    return filelock.FileLock(path, mode=0o600, thread_local=thread_local, fallback_to_soft=False)


def is_writing(directory: Path) -> bool:
    """Whether somebody holds the writer lock in `directory` just now.

    For who reads: it waits for nothing, and where it cannot be told the answer is no.
    """
    try:
        descriptor = os.open(directory / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
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

    `wait` is how long to wait for another holder, in seconds; `on_wait` is told once, in words,
    whom we are waiting for.
    """

    def __init__(
        self, directory: Path, wait: float, on_wait: Callable[[str], None] | None = None
    ) -> None:
        self._path = directory / _LOCK
        self._holder = directory / "holder.json"
        self._wait = wait
        self._on_wait = on_wait
        # Threads queue here, so that they hand over at once instead of polling the file lock.
        self._threads = threading.Lock()

    @contextmanager
    def hold(self, purpose: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock; RepositoryBusy, naming the holder, when it stays taken for too long.

        Without `wait` a lock that is taken is not waited for: the result says whether it is held.
        """
        if not self._threads.acquire(blocking=wait):
            yield False
            return
        try:
            lock = new_lock(self._path)
            held = self._acquire(lock, wait)
            try:
                if held:
                    self._say_who(purpose)
                yield held
            finally:
                if held:
                    lock.release()
        finally:
            self._threads.release()

    def _acquire(self, lock: filelock.BaseFileLock, wait: bool) -> bool:
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
            lock.acquire(timeout=self._wait)
            return True
        except filelock.Timeout as error:
            self._wait = 0  # the other threads of this run need not try as long again
            raise RepositoryBusy(
                f"cannot change {self._path.parents[2]}",
                why=f"{self._describe_holder()}; waited {time.monotonic() - began:.0f} s",
                hint="try again later, or wait longer with --wait SECONDS",
            ) from error

    def _say_who(self, purpose: str) -> None:
        value = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": format_time(datetime.now(UTC)),
            "purpose": purpose,
        }
        draft = self._holder.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        write_new_file(draft, json.dumps(value).encode(), mode=0o600)
        draft.rename(self._holder)

    def _describe_holder(self) -> str:
        try:
            value = json.loads(self._holder.read_bytes())
            return (
                f"process {value['pid']} on {value['host']} has held it since {value['since']} "
                f"for the {value['purpose']}"
            )
        except (OSError, ValueError, KeyError, TypeError):
            return "another process holds it"
