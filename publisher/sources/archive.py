"""Access to the files in a tar archive by name: for `oci-archive:`, `docker-archive:` and engines.

A compressed archive is read in one pass, which keeps its small JSON documents in memory, and the
size, first bytes and digest of its other files. It is decompressed to a temporary file when one of
the other files is opened, so that looking up an image needs no disk space.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar, cast

import zstandard

from publisher.lazy import dataclass
from publisher.oci.document import MAX_DOCUMENT_BYTES
from publisher.sources import SourceError
from publisher.sources.spool import Part, spool

MAX_MEMBERS = 10_000
"""The most members of an archive. Images have up to some hundred layers of three files."""
MAX_LINKS = 8
"""The most links that are followed from one name; layers of old archives can be links."""
MAX_DOCUMENTS = 64 * 1024 * 1024
"""The most bytes of documents of a compressed archive that are kept in memory."""
MAX_UNPACKED = 256 * 1024**3
"""The most bytes of a decompressed archive."""
START = 8
"""The number of bytes of a file's beginning that are kept, to recognize its compression."""
_COPY = 1024 * 1024
_T = TypeVar("_T")
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class _Member:
    """A file, or a link to the file `target`; the fields of a compressed archive's file follow."""

    offset: int = 0
    size: int = 0
    target: str = ""
    document: bytes | None = None
    start: bytes = b""
    digest: str = ""


class Archive:
    """A tar archive with random access. Safe to use from several threads.

    Args:
        name: The archive's name in messages, such as "docker-archive:/srv/a.tar".
        path: The archive, which is opened when it is first read.
        content: The open archive; if given, `path` is not used.
    """

    is_archive = True

    def __init__(self, name: str, path: Path, content: IO[bytes] | None = None) -> None:
        self.name = name
        self._path = path
        self._plain = content
        self._unpacked_size = 0
        self._members: dict[str, _Member] | None = None
        self._lock = threading.Lock()

    def open(self, name: str) -> io.BufferedReader | None:
        """Open the file `name`, following links; return None if it does not exist.

        Raises SourceError if the archive cannot be read, or its copy does not fit on the disk.
        """
        member = self._find(name)
        if member is None:
            return None
        if member.document is not None:
            return io.BufferedReader(io.BytesIO(member.document))
        if not member.offset:
            with self._lock:
                if self._plain is None:
                    self._plain = self._unpack()
                    self._members = self._index_of(self._plain)
            member = self._find(name)
            assert member is not None
        assert self._plain is not None
        part = Part(os.dup(self._plain.fileno()), member.offset, member.size)
        return io.BufferedReader(part, 256 * 1024)

    def size(self, name: str) -> int | None:
        """Return the size of the file `name` in bytes; None if it does not exist."""
        member = self._find(name)
        return None if member is None else member.size

    def start(self, name: str) -> bytes | None:
        """Return the first START bytes of the file `name`; None if it does not exist."""
        member = self._find(name)
        if member is None or member.start:
            return None if member is None else member.start
        return self._read(name, lambda file: file.peek(START)[:START])

    def digest(self, name: str) -> str | None:
        """Return the sha256 digest of the file `name`; None if it does not exist."""
        member = self._find(name)
        if member is None or member.digest:
            return None if member is None else member.digest
        return self._read(
            name, lambda file: f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        )

    def names(self) -> list[str]:
        """Return the names of all files and links."""
        return list(self._index())

    def _read(self, name: str, read: Callable[[io.BufferedReader], _T]) -> _T | None:
        file = self.open(name)
        if file is None:
            return None
        with file:
            return read(file)

    def _find(self, name: str) -> _Member | None:
        members = self._index()
        name = _clean(name)
        for _ in range(MAX_LINKS):
            member = members.get(name)
            if member is None or not member.target:
                return member
            name = member.target
        raise SourceError(f"cannot read {name} of {self.name}", why="its links form a loop")

    def _index(self) -> dict[str, _Member]:
        with self._lock:
            if self._members is None:
                if self._plain is None:
                    self._open()
                if self._members is None:
                    assert self._plain is not None
                    self._members = self._index_of(self._plain)
            return self._members

    def _open(self) -> None:
        """Open an archive that is not compressed, or scan one that is."""
        with self._failures():
            with self._file() as file:
                start = file.read(4)
                file.seek(0)
                if not start.startswith(_GZIP) and start != _ZSTD:
                    self._plain = os.fdopen(os.dup(file.fileno()), "rb")
                    return
            with self._decompressed() as stream:
                self._members = _scan(stream, f"cannot read {self.name}")
                while stream.read(_COPY):
                    pass  # to the end, so that damage is detected
                self._unpacked_size = stream.count

    @contextmanager
    def _file(self) -> Iterator[IO[bytes]]:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not self._path.is_file():
                raise SourceError(f"cannot read {self.name}", why="it is not a file")
            yield file

    @contextmanager
    def _decompressed(self) -> Iterator[_Counted]:
        with self._file() as file:
            start = file.read(4)
            file.seek(0)
            stream: Any
            if start == _ZSTD:
                stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            else:
                stream = gzip.GzipFile(fileobj=file)
            with stream:
                yield _Counted(stream, f"cannot read {self.name}")

    def _unpack(self) -> IO[bytes]:
        """Return the decompressed archive in a temporary file."""
        directory = tempfile.gettempdir()
        free = shutil.disk_usage(directory).free
        if self._unpacked_size > free:
            raise SourceError(
                f"cannot decompress {self.name}",
                why=f"it needs {self._unpacked_size} bytes in {directory}, which has {free}",
                hint="set TMPDIR to a directory with more space, or decompress the file",
            )
        with self._failures(), self._decompressed() as stream:
            return spool(iter(lambda: stream.read(_COPY), b""))

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Convert errors of reading to SourceErrors."""
        what = f"cannot read {self.name}"
        try:
            yield
        except (EOFError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile) as error:
            raise SourceError(what, why=f"its compressed data are corrupt: {error}") from error
        except (tarfile.TarError, ValueError) as error:
            raise SourceError(what, why=f"it is not a tar archive: {error}") from error
        except OSError as error:
            raise SourceError(what, why=error.strerror or str(error)) from error

    def _index_of(self, file: IO[bytes]) -> dict[str, _Member]:
        size = os.fstat(file.fileno()).st_size
        file.seek(0)
        with self._failures(), tarfile.open(fileobj=file, mode="r:") as archive:
            members = {}
            for info in _limited(archive, f"cannot read {self.name}"):
                if info.isreg() and info.offset_data + info.size > size:
                    raise SourceError(f"cannot read {self.name}", why="it ends too early")
                members[_clean(info.name)] = _member(info)
            return members


def _scan(stream: _Counted, what: str) -> dict[str, _Member]:
    """Return the members of a compressed archive, read once from the start to the end."""
    members: dict[str, _Member] = {}
    kept = 0
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as archive:
        for info in _limited(archive, what):
            content = archive.extractfile(info) if info.isreg() else None
            if content is None:
                members[_clean(info.name)] = _member(info)
                continue
            start = content.read(_COPY)
            if info.size <= MAX_DOCUMENT_BYTES and start.lstrip()[:1] in (b"{", b"["):
                document = start + content.read()
                kept += len(document)
                if kept > MAX_DOCUMENTS:
                    raise SourceError(what, why=f"it has more than {MAX_DOCUMENTS} bytes of JSON")
                member = _Member(0, info.size, document=document, start=start[:START])
            else:
                digest = hashlib.sha256(start)
                while chunk := content.read(_COPY):
                    digest.update(chunk)
                name = f"sha256:{digest.hexdigest()}"
                member = _Member(0, info.size, start=start[:START], digest=name)
            members[_clean(info.name)] = member
    return members


def _limited(archive: tarfile.TarFile, what: str) -> Iterator[tarfile.TarInfo]:
    """Yield the files and links of an archive."""
    for count, info in enumerate(archive):
        if count >= MAX_MEMBERS:
            raise SourceError(what, why=f"it has more than {MAX_MEMBERS} members")
        if info.isreg() or info.issym() or info.islnk():
            yield info


def _member(info: tarfile.TarInfo) -> _Member:
    if info.issym():
        return _Member(target=_clean(PurePosixPath(info.name).parent / info.linkname))
    if info.islnk():
        return _Member(target=_clean(info.linkname))
    return _Member(info.offset_data, info.size)


class _Counted:
    """A decompressed stream of at most MAX_UNPACKED bytes."""

    def __init__(self, stream: IO[bytes], what: str) -> None:
        self._stream = stream
        self._what = what
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; raise SourceError beyond MAX_UNPACKED."""
        data = self._stream.read(size)
        self.count += len(data)
        if self.count > MAX_UNPACKED:
            raise SourceError(
                self._what,
                why=f"it decompresses to more than {MAX_UNPACKED} bytes",
                hint="if that is intended, decompress the file, and name the result",
            )
        return data


def _clean(path: str | PurePosixPath) -> str:
    """Return a name in an archive as a relative path; ".." does not lead above its root."""
    parts: list[str] = []
    for part in str(path).split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
