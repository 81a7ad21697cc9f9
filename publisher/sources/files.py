"""Files by name, in a folder or in an archive: what layouts and archives consist of."""

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
    """Files by their relative names, such as "blobs/sha256/…"."""

    name: str
    """The place in messages and hints, as references write it: "oci:/srv/layout"."""
    is_archive: bool

    def open(self, name: str) -> BufferedReader | None:
        """Open the file; None if there is none."""

    def size(self, name: str) -> int | None:
        """Return the bytes of the file; None if there is none."""


class Folder:
    """The files below a directory."""

    is_archive = False

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self.name = name

    def open(self, name: str) -> BufferedReader | None:
        """Open the file, without waiting if it is a pipe; None if there is none."""
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
        """Return the bytes of the file; None if there is none."""
        file = self.open(name)
        if file is None:
            return None
        with file:
            return os.fstat(file.fileno()).st_size


def read_file(files: Files, name: str, limit: int = MAX_DOCUMENT_BYTES) -> bytes | None:
    """Return a small file; None if there is none.

    Raises SourceError if it cannot be read, or is longer than `limit` bytes.
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
    """Yield the chunks of a blob's file: exactly as many bytes as its descriptor states."""
    what = f"cannot read blob {descriptor.digest} of {files.name}"
    file = files.open(name)
    if file is None:
        raise SourceError(what, why=f"no file {name}")
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
            raise SourceError(what, why=f"it is longer than {size} bytes, its size")
        if not chunk:
            break
        yield chunk
    if position < size:
        raise SourceError(what, why=f"it ends after {position} of {size} bytes")


def _unreadable(where: str, name: str, error: OSError) -> SourceError:
    return SourceError(f"cannot read {name} of {where}", why=error.strerror or type(error).__name__)
