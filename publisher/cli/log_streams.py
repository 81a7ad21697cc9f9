"""stderr when the log has the form of JSON: what the command prints there becomes events."""

from __future__ import annotations

import io
import logging
import threading
from typing import TextIO

from publisher.log_context import event

_log = logging.getLogger(__name__)


class EventStream(io.TextIOBase):
    """A text stream whose lines become events of `handler`, whatever its level is."""

    def __init__(self, stderr: TextIO, handler: logging.Handler) -> None:
        self._stderr = stderr
        self._handler = handler
        self._lock = threading.Lock()
        self._line = ""

    def writable(self) -> bool:
        """Return that it is."""
        return True

    def isatty(self) -> bool:
        """Return that it is not, so that nothing is displayed live."""
        return False

    def fileno(self) -> int:
        """Return the descriptor of stderr, for child processes."""
        return self._stderr.fileno()

    def write(self, text: str) -> int:
        """Add text; complete lines become events."""
        with self._lock:
            *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._send(line)
        return len(text)

    def flush(self) -> None:
        """End a line that is not complete."""
        with self._lock:
            line, self._line = self._line, ""
        self._send(line)

    def _send(self, line: str) -> None:
        if line.strip():
            record = _log.makeRecord(
                *(_log.name, logging.INFO, __file__, 0, "%s", (line,), None),
                extra=dict(event("output")),
            )
            self._handler.handle(record)
