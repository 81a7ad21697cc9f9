"""The few things we ask of a disk beyond what `os` offers in one call."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

PUBLIC_DIRECTORY_MODE = 0o755
PUBLIC_FILE_MODE = 0o644

_libc = ctypes.CDLL(None, use_errno=True)


def sync_filesystem(path: Path) -> None:
    """Wait until everything written to the filesystem that holds `path` is on its disk.

    One syncfs(2) serves a tree of any number of files, where fsync would need one call each.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Wait until the names in the directory `path` are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new_file(path: Path, data: bytes, mode: int = PUBLIC_FILE_MODE) -> None:
    """Create `path` with exactly this content and mode, whatever the umask is."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)


def make_directories(path: Path) -> None:
    """Create `path` and what is missing above it, open to all readers whatever the umask is."""
    if path.is_dir():
        return
    make_directories(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        return
    path.chmod(PUBLIC_DIRECTORY_MODE)


def remove_tree(path: Path) -> None:
    """Delete whatever is at `path`; links are removed, never followed."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)
