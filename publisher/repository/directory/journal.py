"""The commit of the directory backend: a list of renames, on disk before the first is executed.

When the journal is on disk, the transaction is committed: the next writer executes it to the end,
however often it is interrupted, since every operation can be repeated. Before, nothing of it is
visible. Operations are executed in order: content, then metadata and links, then removals (with
the directories that they leave empty).
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from publisher.codec import AsArray, Check, Codec, Malformed, UnknownVersion
from publisher.lazy import dataclass
from publisher.repository import DiskFull, RepositoryError
from publisher.repository.disk import (
    NotAFile,
    exchange,
    make_directories,
    open_file,
    remove_empty_parents,
    sync_directory,
    sync_filesystem,
    write_new_file,
)
from publisher.repository.history import History
from publisher.tree.history import Record

VERSION = 1
_RESERVED_PER_OPERATION = 4096
_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Seconds to wait before each further try on a full disk."""


def _is_inside(path: str) -> bool:
    return not any(part in ("", ".", "..") or "\0" in part for part in path.split("/"))


_Path = Annotated[str, Check(_is_inside, "is not a path in the repository")]
"""A damaged journal must not lead out of the repository."""


@dataclass(frozen=True, slots=True)
class Rename(AsArray):
    """Move `source` to `target`, both relative to the repository's root.

    A file or symlink at `target` is replaced atomically. A directory is exchanged with what is at
    `source` if `inode`, the inode of that, is given. With `after_sync`, all earlier
    operations are on disk before this one is executed.
    """

    source: _Path
    target: _Path
    inode: int = 0
    after_sync: bool = False


@dataclass(frozen=True, slots=True)
class _Journal:
    """The file: the transaction's line in the history, and what it does."""

    record: Record
    operations: tuple[Rename, ...]


_CODEC = Codec(_Journal, version=VERSION)


def write(
    journal: Path,
    operations: Sequence[Rename],
    record: Record,
    complete: Callable[[], None] = lambda: None,
) -> None:
    """Reach the commit point: the operations are on disk, after everything they refer to.

    `record` is the transaction's line in the history. `complete` makes the last changes of what the
    operations refer to: those that an error would spoil. It is called when there is space for all.
    """
    draft = journal.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    data = json.dumps(_CODEC.to_object(_Journal(record, tuple(operations)))).encode()
    write_new_file(draft, data, mode=0o600)
    _reserve(draft, len(data) + _RESERVED_PER_OPERATION * len(operations))
    complete()
    # For the content and the draft, and for the removal of the previous journal: see `apply`.
    sync_filesystem(journal.parent)
    draft.rename(journal)
    sync_directory(journal.parent)


def check(journal: Path) -> bool:
    """Return whether there is a journal.

    Raises:
        RepositoryError: It is damaged, or another release wrote it, so that it cannot be executed.
    """
    data = _read(journal)
    if data is None:
        return False
    _parse(data, journal)
    return True


def apply(root: Path, journal: Path) -> bool:
    """Execute the journal and remove it; False if there is no journal.

    Raises:
        RepositoryError: That is impossible now. The next writer tries again.
    """
    data = _read(journal)
    if data is None:
        return False
    committed = _parse(data, journal)
    try:
        _execute_all(root, journal, committed, len(data))
        # Before the journal is removed, and before the caller deletes what is in the trash.
        sync_filesystem(root)
        # Not synced: if a power failure undoes the removal, the journal is executed once more,
        # which has no effect. No path can have been published again by then, because the next
        # transaction syncs the removal before its own commit point.
        journal.unlink()
    except OSError as error:
        raise RepositoryError(
            f"cannot finish the transaction in {journal}",
            why=f"{error.filename2 or error.filename or root}: {error.strerror}",
            hint="correct that, and run any command that writes to the repository: it finishes the "
            "transaction, of which nothing is lost",
        ) from error
    return True


def _execute_all(root: Path, journal: Path, committed: _Journal, size: int) -> None:
    """Execute the operations, and append to the history. The journal has `size` bytes.

    If the disk is full, the space that is reserved in the journal is released at the moment when it
    is needed, and each operation is repeated: an image that is unpacked meanwhile may take that
    space, and releases it when it fails.
    """
    pauses = iter(_PAUSES)
    while True:
        try:
            _execute_once(root, journal, committed)
            return
        except OSError as error:
            pause = next(pauses, None)
            if pause is None or not DiskFull.is_meant_by(error):
                raise
        os.truncate(journal, size)
        time.sleep(pause)


def _execute_once(root: Path, journal: Path, committed: _Journal) -> None:
    staging = f"{journal.parent.relative_to(root).as_posix()}/"
    for operation in committed.operations:
        if operation.after_sync:
            sync_filesystem(root)
        _execute(root, operation)
        if not operation.source.startswith(staging):
            remove_empty_parents(root / operation.source, root)
    History(journal.parent).append(committed.record.to_value())


def _read(journal: Path) -> bytes | None:
    """Return the journal without the reserved space; None if it is missing."""
    try:
        with open_file(journal) as file:
            return file.read().rstrip(b"\0")
    except FileNotFoundError:
        return None
    except NotAFile as error:
        return f"({error.strerror})".encode()


def _reserve(draft: Path, size: int) -> None:
    """Reserve the disk space of new names and directories before the commit point."""
    descriptor = os.open(draft, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def _execute(root: Path, operation: Rename) -> None:
    source, target = root / operation.source, root / operation.target
    try:
        _move(source, target, operation.inode)
    except FileNotFoundError:
        # A source that is missing was moved before an interruption. The directory of its target may
        # have been removed since, and must not come back.
        if os.path.lexists(source):
            make_directories(target.parent)
            _move(source, target, operation.inode)


def _move(source: Path, target: Path, inode: int) -> None:
    if inode and os.path.lexists(target):
        if target.lstat().st_ino != inode:
            exchange(source, target)
        return
    try:
        source.rename(target)
    except OSError as error:
        # The tree was moved before an interruption, and another run has staged the same layer since
        # under the same name. Trees that have the same path have the same content.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _parse(data: bytes, journal: Path) -> _Journal:
    what = f"cannot finish the transaction in {journal}"
    try:
        return _CODEC.parse(data)
    except UnknownVersion as error:
        raise RepositoryError(
            what,
            why=f"another release of publisher wrote it: {error}",
            hint=_away(
                journal,
                "run that release once more on this repository. If that release is not available",
            ),
        ) from error
    except Malformed as error:
        # It was complete before it got its name: no interruption leaves a part of it.
        raise RepositoryError(
            what,
            why=f"the file is damaged: {error}",
            hint=_away(journal, "check the disk, or restore the file. If that is impossible"),
        ) from error


def _away(journal: Path, first: str) -> str:
    moved = shlex.quote(f"{journal}.damaged")
    return f"{first}: mv {shlex.quote(str(journal))} {moved} && publisher verify --deep --refetch"
