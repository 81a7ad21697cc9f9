"""Writing files that commands write for their user: wish lists, locks, reports."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from publisher.errors import PublisherError
from publisher.replacing import replace_file


def rewrite_file(path: str, text: str) -> None:
    """Write a file: atomically, with the mode of the file that it replaces, through a symlink.

    Raises:
        PublisherError: The file cannot be written; the earlier one is unchanged.
    """
    with _explaining(path, "make its directory writable for this user"):
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode & 0o777 if target.exists() else None
        replace_file(target, text.encode(), mode)


def write_report(path: str, text: str) -> None:
    """Write a file in its place, which may be a pipe or a terminal.

    Raises:
        PublisherError: The file cannot be written.
    """
    with (
        _explaining(path, "name a file that this user may write"),
        Path(path).open("w", encoding="utf-8", errors="backslashreplace") as file,
    ):
        file.write(text)


@contextmanager
def _explaining(path: str, hint: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise PublisherError(
            f"cannot write {path}",
            why=error.strerror or str(error),
            hint="free space on its file system" if is_full else hint,
        ) from error
