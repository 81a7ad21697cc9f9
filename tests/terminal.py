"""Commands on a terminal: what they show there, and what is typed."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Sequence
from pathlib import Path

import pyte

from tests.command import environment


class Screen:
    """The contents of a terminal of 80 columns after the bytes that were written to it."""

    def __init__(self) -> None:
        self._screen = pyte.Screen(80, 24)
        self._stream = pyte.ByteStream(self._screen)

    def feed(self, data: bytes) -> None:
        self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def has_cursor(self) -> bool:
        return not self._screen.cursor.hidden


class Terminal:
    """A pseudoterminal of 80 by 24, its screen, and the command whose terminal it is."""

    def __init__(self, command: Sequence[str | Path], **variables: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *map(str, command)],
            env={**environment(TERM="xterm"), **variables},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.screen = Screen()
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self._master, 4096):
                with self._lock:
                    self.screen.feed(data)
        except OSError:  # EIO: the last process has closed the terminal
            pass

    def shows(self, text: str) -> bool:
        with self._lock:
            return any(text in line for line in self.screen.lines)

    def type(self, data: bytes) -> None:
        os.write(self._master, data)

    def wait(self) -> int:
        """Wait for the end of the command; return its exit code."""
        code = self.process.wait(60)
        self._reader.join(60)
        os.close(self._master)
        return code
