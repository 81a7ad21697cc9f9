"""The child process of a job: its output becomes events, and it is ended in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from publisher.service.jobs import launcher
from publisher.service.jobs.output import Output

PATIENCE = (30.0, 10.0, 0.0)
"""Seconds after SIGINT, SIGTERM and SIGKILL until the next signal. A command ends an image's
transaction after the first signal, and ends at once after the second."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_PAUSE = 0.2


def publisher_program(arguments: Sequence[str]) -> list[str]:
    """Return the words that start a `publisher` command, as this process was."""
    # -P: no module in the working directory is imported.
    return [sys.executable, "-P", "-m", "publisher", *arguments]


class Child:
    """A command in a session of its own. It ends if the process that began it dies."""

    def __init__(
        self,
        program: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        output: Output,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), *program],
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=output.read, args=(stream,), daemon=True)
            for stream in (self._process.stdout, self._process.stderr)
        ]
        try:
            for reader in self._readers:
                reader.start()
        except RuntimeError:  # there are too many threads
            self._kill_session()
            self._process.wait()
            raise
        self._sent = 0
        self._next = 0.0

    def wait(self, meanwhile: Callable[[], bool]) -> int:
        """Wait for the end of the command, and return its exit code; negative for a signal.

        `meanwhile` is called several times a second, and returns whether the command is to end.
        """
        while True:
            to_end = meanwhile()
            try:
                code = self._process.wait(_PAUSE)
                break
            except subprocess.TimeoutExpired:
                if to_end:
                    self._end()
        self._kill_session()
        for reader in self._readers:
            reader.join(10)
        return code

    def _end(self) -> None:
        """Send the next signal, if the time of the last one is over."""
        if self._sent and time.monotonic() < self._next:
            return
        step = min(self._sent, len(_SIGNALS) - 1)
        if _SIGNALS[step] is signal.SIGKILL:
            self._kill_session()
        self._process.send_signal(_SIGNALS[step])
        self._next = time.monotonic() + PATIENCE[step]
        self._sent += 1

    def _kill_session(self) -> None:
        """End processes that the command may have left: they would hold its output open."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return
