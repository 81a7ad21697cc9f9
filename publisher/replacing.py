"""Replace a file: a reader, or a crash at any moment, finds the earlier content or the new one."""

from __future__ import annotations

import os
from pathlib import Path

_DRAFT = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_PRIVATE = 0o600


def replace_file(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a file, which may exist; a symlink at `path` is replaced.

    Args:
        path: The file, in a directory that exists.
        data: Its whole content.
        mode: Its mode; None for that of any new file of this process.

    Raises:
        OSError: The earlier file is unchanged, and nothing remains beside it.
    """
    draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, _DRAFT, 0o666 if mode is None else _PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if mode is not None and mode != _PRIVATE:  # some file systems cannot change modes
                os.fchmod(descriptor, mode)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
