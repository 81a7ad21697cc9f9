"""Find out which files a command opens: the call of strace, and the parser of what it writes.

strace needs no privileges, follows all processes of the command, and prints the real path of each
opened file, without symlinks. It does not show the files that the kernel opens itself when it
executes a program: an ELF interpreter, or the program that a script names. `interpreter` finds
them. Files that are opened through io_uring are not seen.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

from publisher.lazy import dataclass, pattern

_TEXT = rb'((?:[^"\\]|\\.)*)'
_PATH = rb"(/(?:[^>\\]|\\.)*)"
_LINE = pattern(rb"(\d+) +(.*)")
_BEGUN = pattern(rb"(.*) <unfinished \.\.\.>$")
_RESUMED = pattern(rb"<\.\.\. \w+ resumed>(.*)$")
_SUPERSEDED = pattern(rb"\+\+\+ superseded by execve in pid (\d+) \+\+\+$")
_OPENED = pattern(rb"(?:open|openat|openat2)\(.*\) += \d+<" + _PATH + rb">$")
_DIRECTORY = pattern(
    rb"(?:openat|openat2)\(AT_FDCWD<" + _PATH + rb">|fchdir\(\d+<" + _PATH + rb">\) += 0$"
)
_CHANGED = pattern(rb'chdir\("' + _TEXT + rb'"\) += 0$')
_EXECUTED = pattern(rb'execve\("' + _TEXT + rb'", .*\) += 0$')
_EXECUTED_AT = pattern(rb"execveat\((?:\w+)<" + _PATH + rb'>, "' + _TEXT + rb'", .*\) += 0$')
_NOT_READ = pattern(rb"\b(?:O_PATH|O_DIRECTORY)\b")
_ESCAPE = pattern(rb"\\([0-7]{1,3}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_LETTERS = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"v": b"\v", b"f": b"\f", b"b": b"\b"}

_PROGRAM_HEADER_INTERPRETER = 3
_MOST_HEADERS = 2**16
_SCRIPT_LINE = 256
"""How many bytes of a script the kernel reads to find its interpreter."""


@dataclass(frozen=True, slots=True)
class Access:
    """A file that a process opened or executed.

    The path of an executed file may have symlinks, and may be relative. Then the process was in one
    of `directories`, the most likely first. Paths that are not UTF-8 are kept by `surrogateescape`.
    """

    path: str
    executed: bool = False
    directories: tuple[str, ...] = ()


def strace(command: Sequence[str], log: str) -> list[str]:
    """Return the command that runs `command` and writes the files that it opens to `log`."""
    calls = "trace=open,openat,openat2,execve,execveat,chdir,fchdir"
    options = ["-f", "-y", "-qq", "--seccomp-bpf", "-s", "0", "-e", calls, "-e", "signal=none"]
    return ["strace", *options, "-o", log, "--", *command]


def accesses(lines: Iterable[bytes]) -> Iterator[Access]:
    """Yield what the program of a sandbox opened, from the log of the sandbox, in order.

    The first execution in the log is that of the sandbox, the second one that of the program. Its
    executable comes first.
    """
    executions = 0
    sandbox: set[bytes] = set()
    directories = _Directories()
    for process, call in _calls(lines):
        directories.note(process, call)
        executed = _execution(call)
        executions += executed is not None
        if executions < 2:
            sandbox.add(process)
        elif executed is not None:
            sandbox.discard(process)
            yield replace(executed, directories=directories.of(process))
        elif process not in sandbox:
            opened = _OPENED.match(call)
            flags = call.rpartition(b" = ")[0].rpartition(b'"')[2]
            if opened and not _NOT_READ.search(flags):
                yield Access(_decode(opened[1]))


class _Directories:
    """The working directories of processes, as far as their calls show them."""

    def __init__(self) -> None:
        self._by_process: dict[bytes, str] = {}
        self._latest: dict[str, None] = {}

    def note(self, process: bytes, call: bytes) -> None:
        """Note the directory in which the process makes a call, or to which it changes."""
        if found := _DIRECTORY.match(call):
            directory = _decode(found[1] or found[2])
        elif found := _CHANGED.match(call):
            directory = _decode(found[1])
            if not directory.startswith("/"):
                directory = f"{next(iter(self.of(process)), '')}/{directory}"
        else:
            return
        self._by_process[process] = directory
        self._latest.pop(directory, None)
        self._latest[directory] = None

    def of(self, process: bytes) -> tuple[str, ...]:
        """Return the directory of the process; if it is not known, all others, the latest first.

        A new process begins in that of its parent.
        """
        known = self._by_process.get(process)
        return tuple(reversed(self._latest)) if known is None else (known,)


def first_process(log: bytes) -> int | None:
    """Return the ID of the process of the sandbox; None if the log is still empty."""
    found = _LINE.match(log)
    return int(found[1]) if found else None


def interpreter(file: BinaryIO) -> str:
    """Return the path of the program that the kernel starts to execute `file`, or "".

    That is the program in the first line of a script, or the dynamic loader of an ELF file.
    """
    start = file.read(_SCRIPT_LINE)
    if start.startswith(b"#!"):
        words = start[2:].split(b"\n")[0].split()
        return os.fsdecode(words[0]) if words else ""
    if not start.startswith(b"\x7fELF"):
        return ""
    try:
        return _elf_interpreter(file, start)
    except (struct.error, IndexError):
        return ""


def _elf_interpreter(file: BinaryIO, start: bytes) -> str:
    """Return the content of the segment PT_INTERP (elf(5)); "" if the file has no such segment."""
    is_64_bit = start[4] == 2
    order = "<" if start[5] == 1 else ">"
    table, size, count = (
        struct.unpack_from(f"{order}{form}", start, offset)[0]
        for form, offset in (
            (("Q", 32), ("H", 54), ("H", 56)) if is_64_bit else (("I", 28), ("H", 42), ("H", 44))
        )
    )
    file.seek(table)
    headers = file.read(min(size * count, _MOST_HEADERS))
    for place in range(0, size * count, size):
        if struct.unpack_from(f"{order}I", headers, place)[0] != _PROGRAM_HEADER_INTERPRETER:
            continue
        form, at, length_at = (f"{order}Q", 8, 32) if is_64_bit else (f"{order}I", 4, 16)
        file.seek(struct.unpack_from(form, headers, place + at)[0])
        length = struct.unpack_from(form, headers, place + length_at)[0]
        return os.fsdecode(file.read(min(length, 4096)).split(b"\0")[0])
    return ""


def _calls(lines: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the process and the text of each completed call."""
    begun: dict[bytes, bytes] = {}
    for line in lines:
        found = _LINE.match(line.rstrip(b"\n"))
        if found is None:
            continue
        process, text = found[1], found[2]
        if part := _BEGUN.match(text):
            begun[process] = part[1]
        elif part := _SUPERSEDED.match(text):
            begun[process] = begun.pop(part[1], b"")
        elif part := _RESUMED.match(text):
            yield process, begun.pop(process, b"") + part[1]
        else:
            yield process, text


def _execution(call: bytes) -> Access | None:
    if found := _EXECUTED.match(call):
        return Access(_decode(found[1]), executed=True)
    if found := _EXECUTED_AT.match(call):
        directory, name = _decode(found[1]), _decode(found[2])
        path = name if name.startswith("/") else f"{directory}/{name}" if name else directory
        return Access(path, executed=True)
    return None


def _decode(text: bytes) -> str:
    """Return a text that strace wrote, with octal numbers for other characters than ASCII."""
    return os.fsdecode(_ESCAPE.sub(lambda found: _character(found[1]), text))


def _character(escape: bytes) -> bytes:
    if escape[:1].isdigit():
        return bytes([int(escape, 8) & 255])
    if len(escape) == 3:
        return bytes([int(escape[1:], 16)])
    return _LETTERS.get(escape, escape)
