"""Log files: rotated, also if several processes write to one, and never the reason of a failure."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sys
from contextlib import suppress
from logging.handlers import RotatingFileHandler

from publisher.cli.rendering import message

MAX_BYTES = 10_000_000
"""The size at which a file is renamed."""

KEPT = 5
"""How many renamed files are kept."""


class LogFile(RotatingFileHandler):
    """A log file at the absolute path `path`, which may be new.

    After an error each further line is tried as well; the first error is printed on stderr.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: str, *, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError(errno.EINVAL, "it is not a file")  # opening a pipe would wait
        super().__init__(
            path, maxBytes=max_bytes, backupCount=kept, encoding="utf-8", errors="backslashreplace"
        )
        self._failed = False

    def write_first(self, record: logging.LogRecord) -> None:
        """Write a record; raise OSError if that is not possible."""
        stream = self.stream or self._open()
        stream.write(self.format(record) + self.terminator)
        stream.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record to the file that has the name now, which may be a new one."""
        if self.stream is not None and not self._is_current(self.stream.fileno()):
            self._close_stream()
        super().emit(record)

    def doRollover(self) -> None:  # noqa: N802 - the name in `logging`
        """Rename the files, unless another process has just done that."""
        stream = self.stream or self._open()
        held = os.dup(stream.fileno())
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            if self._is_current(held):
                super().doRollover()
            else:
                self._close_stream()
                self.stream = self._open()
        finally:
            os.close(held)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Print the first error; the command goes on."""
        error = sys.exc_info()[1]
        self._close_stream()
        if not self._failed:
            self._failed = True
            why = getattr(error, "strerror", None) or str(error)
            message(f"cannot write the log {self.baseFilename}: {why}; lines are lost")

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.baseFilename))
        except OSError:
            return False  # opening it again then is the error, if there is one

    def _close_stream(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError):
                stream.close()
