"""At most one run at a time works on one wish list."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from publisher.errors import PublisherError, failure_text
from publisher.state.database import canonical_url, make_directory
from publisher.tree.layout import RepositoryURL


class OtherRun(PublisherError):
    """Another run is at work on the same wish list. `pid` is its process, or 0."""

    def __init__(self, what: str, *, why: str, hint: str, pid: int) -> None:
        super().__init__(what, why=why, hint=hint)
        self.pid = pid


@contextmanager
def only_run(
    directory: Path,
    works: Iterable[tuple[str | RepositoryURL, str]],
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[None]:
    """Exclude other runs that publish the same wish lists into the same repositories.

    The kernel releases the locks when the process ends, in any way. If a lock cannot be used, for
    example in a directory that is read-only, that is noted, and the run is not excluded from
    anything: only the time of two runs is wasted, since commits have a lock of their own.

    Args:
        directory: The directory of the locks; it is created if necessary.
        works: A repository and the identity of a wish list, for each list.
        note: Receives a sentence about a lock that cannot be used.

    Raises:
        OtherRun: Another run is at work on one of the lists.
    """
    with ExitStack() as stack:
        # Two runs of the same lists take them in the same order, so that one of both begins.
        for url, wish_list in sorted({(canonical_url(url), each) for url, each in works}):
            try:
                _lock(stack, directory, url, wish_list)
            except OSError as error:
                note(failure_text(error, str(directory)))
                break
        yield


def _lock(stack: ExitStack, directory: Path, url: str, wish_list: str) -> None:
    key = f"{url}\n{wish_list}".encode("utf-8", "surrogateescape")
    path = directory / f"run-{hashlib.sha256(key).hexdigest()[:16]}.lock"
    make_directory(directory)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o644)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        text = os.pread(descriptor, 20, 0)
        pid = int(text) if text.strip().isdigit() else 0
        raise OtherRun(
            f"cannot ingest {wish_list}",
            why="another run is at work on the same list"
            + (f": process {pid} of this machine" if pid else ""),
            hint="run again after it has ended",
            pid=pid,
        ) from None
    with suppress(OSError):  # the number is for the message of another run: the lock needs no space
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
