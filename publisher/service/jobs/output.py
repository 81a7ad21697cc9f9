"""The output of a child becomes events, of bounded number and size."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from io import BufferedIOBase

from publisher.errors import printable
from publisher.times import utc_now

MAX_LINE = 16 * 1024
"""Of a longer line of the output, in bytes, the beginning is kept."""

MAX_BYTES = 64 * 1024 * 1024
"""How much of the output of one attempt is kept."""

_DEBUG = ("layer-started", "layer-done")
"""The events of the level debug that are kept."""

_AT_THE_END = 100
"""How many errors, and the end of the command, are kept although there are too many lines."""

_BLOCK = 64 * 1024

_IMPORTANT = (b'"error"', b'"command-ended"')
"""What the lines of these events have in common, however their JSON is written."""

_MOST_LEVELS = 16
"""Events have four levels. Deeper values could not be written again (RecursionError)."""

Value = Mapping[str, object]


class Output:
    """Collects the events of one attempt, from the threads that read its output.

    `allowed` is how many events may be kept.
    """

    def __init__(self, command: str, allowed: int) -> None:
        self._command = command
        self._allowed = allowed
        self._bytes = MAX_BYTES
        self._reserve = _AT_THE_END
        self._is_full = False
        self._dropped = 0
        self._values: list[Value] = []
        self._last: list[Value] = []
        self._lock = threading.Lock()

    def read(self, stream: BufferedIOBase) -> None:
        """Read lines to the end of the stream."""
        with stream:
            while not self._is_full and (line := stream.readline(MAX_LINE)):
                shortened = not line.endswith(b"\n") and len(line) == MAX_LINE
                self.add(_value(line, self._command, shortened))
                while shortened and (line := stream.readline(MAX_LINE)):
                    shortened = not line.endswith(b"\n")
            # A command may write gigabytes: only what may still be kept of them is parsed.
            while block := stream.read1(_BLOCK):
                if not block.endswith(b"\n"):
                    block += stream.readline(MAX_LINE)
                self._read_rest(block)

    def _read_rest(self, block: bytes) -> None:
        """Keep the important events of lines for which there is no space; count the others."""
        if not (self._reserve and any(text in block for text in _IMPORTANT)):
            with self._lock:
                self._dropped += block.count(b"\n")
            return
        *lines, rest = block.split(b"\n")
        if 0 < len(rest) < MAX_LINE:  # the stream has ended; a longer line is counted at its end
            lines.append(rest)
        for line in lines:
            self.add(_value(line[:MAX_LINE], self._command, len(line) >= MAX_LINE))

    def add(self, value: Value | None) -> None:
        """Keep an event, if there is space; None is an event that nothing shows."""
        if value is None:
            return
        size = len(json.dumps(value))
        with self._lock:
            important = value["level"] == "error" or value["event"] == "command-ended"
            if self._allowed > 0 and self._bytes >= size:
                self._allowed -= 1
                self._bytes -= size
            elif important and self._reserve > 0:
                self._reserve -= 1
                self._is_full = True
            else:
                self._dropped += 1
                self._is_full = True
                return
            # The other stream may still have lines that the command wrote before.
            values = self._last if value["event"] == "command-ended" else self._values
            values.append(value)

    def end_command(self) -> None:
        """Add the end of a command, after both of its streams were read to their ends."""
        with self._lock:
            self._values += self._last
            self._last.clear()

    def take(self, most: int = 500) -> list[Value]:
        """Return the oldest events that were not taken yet."""
        with self._lock:
            taken, self._values[:] = self._values[:most], self._values[most:]
            return taken

    def put_back(self, values: list[Value]) -> None:
        """Return events that could not be stored."""
        with self._lock:
            self._values[:0] = values

    def end(self, failure: str = "") -> None:
        """Add the number of lines that were not kept, if any, and why the job failed, if it did.

        There is always space for these.
        """
        self.end_command()
        with self._lock:
            if self._dropped:
                text = f"{self._dropped} further lines of the output were not kept"
                self._values.append(made_event(self._command, "notice", "warning", text))
                self._dropped = 0
            if failure:
                self._values.append(made_event(self._command, "job-failed", "error", failure))


def made_event(command: str, name: str, level: str, text: str) -> Value:
    """Return an event of the service itself."""
    time = utc_now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "schema": "publisher/event/1",
        "time": time,
        "level": level,
        "event": name,
        "message": printable(text),
        "command": command,
        "run": "00000000",
        "logger": "publisher.service",
    }


def _value(line: bytes, command: str, shortened: bool) -> Value | None:
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    try:
        is_object = text.startswith("{") and not shortened
        value = json.loads(text, parse_constant=_refuse) if is_object else None
    except (ValueError, RecursionError):
        value = None
    if _is_deep(value):
        value = None
    if isinstance(value, dict) and isinstance(value.get("level"), str) and "event" in value:
        kept = value["level"] != "debug" or value["event"] in _DEBUG
        return value if kept else None
    return made_event(command, "output", "info", text + ("…" if shortened else ""))


def _is_deep(value: object) -> bool:
    """Return whether a JSON value has more than _MOST_LEVELS, without recursion."""
    values = [value]
    for _ in range(_MOST_LEVELS):
        values = [
            inner
            for each in values
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return bool(values)


def _refuse(name: str) -> None:
    """Refuse NaN and Infinity, which are not JSON."""
    raise ValueError(name)
