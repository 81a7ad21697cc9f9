"""Replacing files that commands write for their user: wish lists and locks."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from publisher.errors import PublisherError


def replace_file(path: str, text: str) -> None:
    """Write a file: atomically, with the mode of the file that it replaces, through a symlink.

    Raises:
        PublisherError: The file cannot be written; the earlier one is unchanged.
    """
    try:
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                os.fchmod(descriptor, mode)
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise PublisherError(
            f"cannot write {path}",
            why=error.strerror or str(error),
            hint="make its directory writable for this user",
        ) from error


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
