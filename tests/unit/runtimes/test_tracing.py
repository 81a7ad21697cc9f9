"""What strace writes is read, and the programs that the kernel starts for others are found."""

from __future__ import annotations

import io
import struct

import pytest

from publisher.runtimes.tracing import Access, accesses, first_process, interpreter, strace

SANDBOX = rb"""10 execve("/usr/bin/bwrap", ["bwrap"], 0x7ffe /* 3 vars */) = 0
10 openat(AT_FDCWD</home>, "/etc/ld.so.cache", O_RDONLY|O_CLOEXEC) = 3</etc/ld.so.cache>
11 openat(3</proc>, "self", O_RDONLY|O_PATH) = 5</proc/11>
11 chdir("/work") = 0
12 execve("/usr/local/bin/tool", ["tool"], 0x55 /* 1 var */) = -1 ENOENT (No such file or directory)
12 execve("/usr/bin/tool", ["tool"], 0x55 /* 1 var */) = 0
"""


def read(log: bytes) -> list[Access]:
    first, *others = accesses((SANDBOX + log).splitlines(keepends=True))
    assert first.path == "/usr/bin/tool" and first.executed
    return others


@pytest.mark.parametrize(
    ("log", "paths"),
    [
        (rb'12 openat(AT_FDCWD</w>, "../lib/x", O_RDONLY) = 3</usr/lib/x.1>', ["/usr/lib/x.1"]),
        (rb'12 openat2(3</w>, "x", {flags=O_RDONLY, resolve=0}, 24) = 4</w/x>', ["/w/x"]),
        (rb'12 open("/a", O_RDONLY) = 3</b>', ["/b"]),
        (rb'12 openat(AT_FDCWD</>, "/no", O_RDONLY) = -1 ENOENT (No such file or directory)', []),
        (rb'12 openat(AT_FDCWD</>, "/d", O_RDONLY|O_DIRECTORY) = 3</d>', []),
        (rb'12 openat(AT_FDCWD</>, "/O_PATH", O_RDONLY) = 3</O_PATH>', ["/O_PATH"]),
        (rb'12 openat(AT_FDCWD</>, "/p", O_RDONLY|O_PATH) = 3</p>', []),
        (rb'12 openat(AT_FDCWD</>, "pipe", O_RDONLY) = 3<pipe:[123]>', []),
        (rb'10 openat(AT_FDCWD</>, "/of/the/sandbox", O_RDONLY) = 3</of/the/sandbox>', []),
        (rb'11 openat(AT_FDCWD</>, "/of/the/sandbox", O_RDONLY) = 3</of/the/sandbox>', []),
        (rb'12 openat(AT_FDCWD</>, "/\303\244\n", O_RDONLY) = 3</\303\244\n\76\\\1771>',
         ["/ä\n>\\\x7f1"]),
        (rb'12 openat(AT_FDCWD</>, "/\xff", O_RDONLY) = 3</\377>', ["/\udcff"]),
        (b'12 openat(AT_FDCWD</>, "/x" <unfinished ...>\n13 open("/y", O_RDONLY) = 3</y>\n'
         b"12 <... openat resumed>, O_RDONLY) = 3</x>", ["/y", "/x"]),
        (b'12 openat(AT_FDCWD</>, "/x" <unfinished ...>\n12 +++ killed by SIGKILL +++\n'
         b"garbage\n\n", []),
        (rb'12 execveat(3</usr/bin/x>, "", ["x"], 0x5 /* 0 vars */, AT_EMPTY_PATH) = 0',
         ["/usr/bin/x"]),
        (rb'12 execveat(AT_FDCWD</w>, "x", ["x"], 0x5 /* 0 vars */, 0) = 0', ["/w/x"]),
        (b'14 execve("/x" <unfinished ...>\n12 +++ superseded by execve in pid 14 +++\n'
         b'12 <... execve resumed>, ["x"], 0x5 /* 0 vars */) = 0', ["/x"]),
    ],
)  # fmt: skip
def test_each_opened_file_is_found_once_by_its_real_path(log: bytes, paths: list[str]) -> None:
    assert [access.path for access in read(log)] == paths


def test_the_directory_of_a_relative_path_is_that_of_the_process_or_one_of_the_latest() -> None:
    log = rb"""12 chdir("/a") = 0
12 chdir("b") = 0
12 chdir("/missing") = -1 ENOENT (No such file or directory)
12 execve("./own", ["x"], 0x5 /* 0 vars */) = 0
13 execve("./child", ["x"], 0x5 /* 0 vars */) = 0
12 fchdir(4</c>) = 0
13 openat(AT_FDCWD</d>, "x", O_RDONLY) = 3</d/x>
13 execve("./known", ["x"], 0x5 /* 0 vars */) = 0
14 execve("./new", ["x"], 0x5 /* 0 vars */) = 0
"""
    found = {access.path: access.directories for access in read(log)}
    assert found["./own"] == ("/a/b",)
    assert found["./child"][:2] == ("/a/b", "/a")
    assert found["./known"] == ("/d",)
    assert found["./new"][:2] == ("/d", "/c")


def test_a_sandbox_that_starts_no_program_opens_nothing() -> None:
    assert list(accesses(SANDBOX.splitlines()[:-1])) == list(accesses([])) == []
    assert first_process(SANDBOX) == 10 and first_process(b"") is None
    assert strace(["bwrap", "x"], "log")[-4:] == ["log", "--", "bwrap", "x"]


def elf(bits: int, order: str, path: bytes = b"/lib/ld.so.1\0") -> bytes:
    """The start of an ELF file with two program headers, of which the second is PT_INTERP."""
    identity = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2]) + bytes(10)
    if bits == 64:
        rest = struct.pack(f"{order}HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
        headers = struct.pack(f"{order}IIQQQQQQ", 1, 4, 0, 0, 0, 0, 0, 0)
        headers += struct.pack(f"{order}IIQQQQQQ", 3, 4, 500, 0, 0, len(path), len(path), 1)
    else:
        rest = struct.pack(f"{order}HHIIIIIHHHHHH", 3, 40, 1, 0, 52, 0, 0, 52, 32, 2, 0, 0, 0)
        headers = struct.pack(f"{order}IIIIIIII", 1, 0, 0, 0, 0, 0, 4, 0)
        headers += struct.pack(f"{order}IIIIIIII", 3, 500, 0, 0, len(path), len(path), 4, 1)
    return (identity + rest + headers).ljust(500, b"\0") + path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"#!/bin/sh\n", "/bin/sh"), (b"#! /usr/bin/env  python3\n", "/usr/bin/env"),
        (b"#!/bin/sh", "/bin/sh"), (b"#!\n", ""), (b"#!", ""), (b"", ""), (b"echo\n", ""),
        (b"\x7fELF", ""), (elf(64, "<")[:80], ""), (b"\x7fELF" + b"\xff" * 300, ""),
        (elf(64, "<"), "/lib/ld.so.1"), (elf(64, ">"), "/lib/ld.so.1"),
        (elf(32, "<"), "/lib/ld.so.1"), (elf(32, ">"), "/lib/ld.so.1"),
    ],
)  # fmt: skip
def test_the_interpreter_of_a_program_is_found(content: bytes, expected: str) -> None:
    assert interpreter(io.BytesIO(content)) == expected
