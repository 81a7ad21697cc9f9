"""Standard streams that are always open, and tolerate readers that close their end."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

STANDARD_OUTPUT = "standard output"
"""The name of the file in errors of writes to stdout."""
_STDIN, _STDOUT, _STDERR = 0, 1, 2


class _Output(io.RawIOBase):
    """The file behind stdout or stderr. Output to a closed pipe (`… | head`) is discarded.

    The command continues to its end, and its exit code is unaffected. A full disk is an error for
    results; messages on stderr never cause a failure.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._broken = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        if self._broken:
            return len(data)
        try:
            return os.write(self._descriptor, data)
        except OSError as error:
            self._broken = True  # later writes would fail as well
            if self._descriptor == _STDERR or isinstance(error, BrokenPipeError):
                return len(data)
            raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from error


def prepare_streams() -> None:
    """Open the streams that the caller closed, and replace stdout and stderr by tolerant ones."""
    for descriptor in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is this one; otherwise a file of the repository would get it.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = os.fdopen(_STDIN, closefd=False)
    sys.stdout = _writer(_STDOUT, sys.stdout, "strict", by_line=os.isatty(_STDOUT))
    sys.stderr = _writer(_STDERR, sys.stderr, "backslashreplace", by_line=True)


def _writer(descriptor: int, old: TextIO | None, errors: str, *, by_line: bool) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(descriptor)),
        encoding=old.encoding if old else "utf-8",
        errors=(old.errors if old else None) or errors,
        line_buffering=by_line,
    )
