"""Temporary files without a name, and parts of files."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterable
from typing import IO


def spool(chunks: Iterable[bytes]) -> IO[bytes]:
    """Return a temporary file without a name that contains the chunks."""
    file = tempfile.TemporaryFile(prefix="publisher-")  # noqa: SIM115  # returned while open
    try:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
    except BaseException:
        file.close()
        raise
    return file


class Part(io.RawIOBase):
    """A part of a file, read by position, so that several readers can share the file."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._file = descriptor
        self._position = offset
        self._end = offset + size

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read the next bytes of the part into `buffer`; return their number."""
        wanted = min(len(buffer), self._end - self._position)
        data = os.pread(self._file, wanted, self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Close the descriptor, which this part owns."""
        if not self.closed:
            os.close(self._file)
        super().close()
