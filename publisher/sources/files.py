"""Named files in a folder or in an archive, read alike: what layouts and archives are made of."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from publisher.errors import PublisherError
from publisher.oci.descriptor import Descriptor
from publisher.oci.document import MAX_DOCUMENT_BYTES
from publisher.sources import SourceError

CHUNK = 256 * 1024


class Files(Protocol):
    """Files by their relative names, such as "blobs/sha256/…"."""

    name: str
    """What is shown of it: "oci:/srv/layout"."""

    def open(self, name: str) -> BufferedReader | None:
        """The file, or None where there is none."""

    def size(self, name: str) -> int | None:
        """Bytes of the file, or None where there is none."""


class Folder:
    """The files below a directory."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self.name = name

    def open(self, name: str) -> BufferedReader | None:
        """The file, opened so that a pipe in its place cannot block."""
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
        """Bytes of the file."""
        file = self.open(name)
        if file is None:
            return None
        with file:
            return os.fstat(file.fileno()).st_size


def read_file(files: Files, name: str, limit: int = MAX_DOCUMENT_BYTES) -> bytes | None:
    """A small file, whole; None where there is none."""
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
    """The chunks of the file that holds a blob: exactly as many bytes as its descriptor says."""
    what = f"cannot read blob {descriptor.digest} of {files.name}"
    file = files.open(name)
    if file is None:
        raise SourceError(what, why=f"there is no {name}")
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
            raise SourceError(what, why=f"it is longer than the {size} bytes announced")
        if not chunk:
            break
        yield chunk
    if position < size:
        raise SourceError(what, why=f"it ends after {position} of {size} bytes")


def _unreadable(where: str, name: str, error: OSError) -> PublisherError:
    return SourceError(f"cannot read {name} of {where}", why=error.strerror or type(error).__name__)
