"""The files in a tar archive, by name: what `oci-archive:`, `docker-archive:` and engines give."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import zstandard

from publisher.sources import SourceError

MAX_MEMBERS = 10_000
"""An image has at most some hundred layers, with up to three files each."""
MAX_LINKS = 8
"""How many links are followed from one name; layers of old archives are links to each other."""
_COPY = 1024 * 1024
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class _Member:
    offset: int
    size: int
    target: str = ""


class Archive:
    """A tar archive with random access, safe to use from several threads.

    `content` is the archive where it is open already; else it is opened at `path` when it is first
    read. A compressed one is then decompressed into a temporary file.
    """

    def __init__(self, name: str, path: Path, content: IO[bytes] | None = None) -> None:
        self.name = name
        self._path = path
        self._content = content
        self._members: dict[str, _Member] | None = None
        self._lock = threading.Lock()

    def open(self, name: str) -> io.BufferedReader | None:
        """The file `name`, or None where there is none; links within the archive are followed."""
        member = self._find(name)
        if member is None:
            return None
        return io.BufferedReader(_Part(self._descriptor(), member.offset, member.size), 256 * 1024)

    def size(self, name: str) -> int | None:
        """Bytes of the file."""
        member = self._find(name)
        return None if member is None else member.size

    def names(self) -> list[str]:
        """All files and links in the archive."""
        return list(self._index())

    def resolved(self, name: str) -> str:
        """The name of the file that `name` is, or leads to by links."""
        members = self._index()
        name = _clean(name)
        for _ in range(MAX_LINKS):
            member = members.get(name)
            if member is None or not member.target:
                return name
            name = member.target
        raise SourceError(f"cannot read {name} of {self.name}", why="its links go in a circle")

    def _find(self, name: str) -> _Member | None:
        return self._index().get(self.resolved(name))

    def _descriptor(self) -> int:
        assert self._content is not None
        return os.dup(self._content.fileno())

    def _index(self) -> dict[str, _Member]:
        with self._lock:
            if self._members is None:
                if self._content is None:
                    self._content = self._open_plain()
                self._members = self._read_index(self._content)
            return self._members

    def _open_plain(self) -> IO[bytes]:
        """The archive itself if it is not compressed, else a decompressed copy without a name."""
        what = f"cannot read {self.name}"
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            file = os.fdopen(descriptor, "rb")
            if not self._path.is_file():
                raise SourceError(what, why="it is not a file")
            start = file.read(4)
            file.seek(0)
            stream: IO[bytes] | gzip.GzipFile
            if start.startswith(_GZIP):
                stream = gzip.GzipFile(fileobj=file)
            elif start == _ZSTD:
                stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            else:
                return file
            with file, stream:
                return spool(iter(lambda: stream.read(_COPY), b""))
        except OSError as error:
            raise SourceError(what, why=error.strerror or str(error)) from error
        except (EOFError, zlib.error, zstandard.ZstdError) as error:
            raise SourceError(what, why=f"its compression is broken: {error}") from error

    def _read_index(self, file: IO[bytes]) -> dict[str, _Member]:
        members: dict[str, _Member] = {}
        what = f"cannot read {self.name}"
        size = os.fstat(file.fileno()).st_size
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for info in archive:
                    if len(members) >= MAX_MEMBERS:
                        raise SourceError(what, why=f"it has more than {MAX_MEMBERS} members")
                    if info.isreg():
                        if info.offset_data + info.size > size:
                            raise SourceError(what, why="it ends too early")
                        members[_clean(info.name)] = _Member(info.offset_data, info.size)
                    elif info.issym():
                        parent = PurePosixPath(info.name).parent
                        members[_clean(info.name)] = _Member(0, 0, _clean(parent / info.linkname))
                    elif info.islnk():
                        members[_clean(info.name)] = _Member(0, 0, _clean(info.linkname))
        except (tarfile.TarError, OSError, ValueError) as error:
            raise SourceError(what, why=f"it is not a tar archive that we can read: {error}") from (
                error
            )
        return members


def spool(chunks: Iterable[bytes]) -> IO[bytes]:
    """The chunks in a temporary file without a name, which ends with its last user."""
    file = tempfile.TemporaryFile(prefix="publisher-")  # noqa: SIM115  # handed on, open
    try:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
    except BaseException:
        file.close()
        raise
    return file


class _Part(io.RawIOBase):
    """A part of a file, read by position, so that readers do not disturb each other."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._file = descriptor
        self._position = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._end - self._position)
        data = os.pread(self._file, wanted, self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._file)
        super().close()


def _clean(path: str | PurePosixPath) -> str:
    """A name in an archive as a plain relative one; ".." never leads above the archive."""
    parts: list[str] = []
    for part in str(path).split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
