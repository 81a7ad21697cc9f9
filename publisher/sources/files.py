"""Access to the files of image layouts and archives by their names."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from publisher.oci.descriptor import Descriptor
from publisher.oci.document import MAX_DOCUMENT_BYTES
from publisher.sources import SourceError

CHUNK = 256 * 1024


class Files(Protocol):
    """The files of a directory or archive, by relative names such as "blobs/sha256/…"."""

    name: str
    """The name of the place in messages, in the form of a reference: "oci:/srv/layout"."""
    is_archive: bool

    def open(self, name: str) -> BufferedReader | None:
        """Open the file; return None if it does not exist."""

    def size(self, name: str) -> int | None:
        """Return the size of the file in bytes; None if it does not exist."""


class Directory:
    """The files below a directory."""

    is_archive = False

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self.name = name

    def open(self, name: str) -> BufferedReader | None:
        """Open the file; return None if it does not exist. Opening a pipe does not block."""
        try:
            descriptor = os.open(self._path / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreadable(self.name, name, error) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise SourceError(f"cannot read {name} of {self.name}", why="it is not a file")
        return os.fdopen(descriptor, "rb")

    def size(self, name: str) -> int | None:
        """Return the size of the file in bytes; None if it does not exist."""
        file = self.open(name)
        if file is None:
            return None
        with file:
            return os.fstat(file.fileno()).st_size


def read_file(files: Files, name: str, limit: int = MAX_DOCUMENT_BYTES) -> bytes | None:
    """Return the content of a small file; None if it does not exist.

    Raises:
        SourceError: The file cannot be read, or is longer than `limit` bytes.
    """
    file = files.open(name)
    if file is None:
        return None
    with file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise _unreadable(files.name, name, error) from error
    if len(data) > limit:
        raise SourceError(
            f"cannot read {name} of {files.name}", why=f"it is longer than {limit} bytes"
        )
    return data


@contextmanager
def open_blob(files: Files, name: str, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
    """Return an iterator over the chunks of a blob's file.

    Raises:
        SourceError: The file is missing or unreadable, or its size is not that of the descriptor.
    """
    what = f"cannot read blob {descriptor.digest} of {files.name}"
    file = files.open(name)
    if file is None:
        raise SourceError(what, why=f"the file {name} is missing")
    with file:
        yield _chunks(file, descriptor.size, what)


def _chunks(file: BufferedReader, size: int, what: str) -> Iterator[bytes]:
    position = 0
    while True:
        try:
            chunk = file.read(min(CHUNK, size + 1 - position))
        except (OSError, EOFError) as error:
            raise SourceError(what, why=str(error)) from error
        position += len(chunk)
        if position > size:
            raise SourceError(what, why=f"it is longer than the {size} bytes of its descriptor")
        if not chunk:
            break
        yield chunk
    if position < size:
        raise SourceError(what, why=f"it ends after {position} of {size} bytes")


def _unreadable(where: str, name: str, error: OSError) -> SourceError:
    return SourceError(f"cannot read {name} of {where}", why=error.strerror or type(error).__name__)
