"""What a compromised worker attacks: files and sockets outside of its directory, and this process.

Its attempts are those of tests/compromised.py.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.compromised import Target
from tests.confined import ADDRESS_SPACE, FILE_SIZE, OPEN_FILES

_MEMORY = ctypes.create_string_buffer(b"the parent's", 16)
_libc = ctypes.CDLL(None, use_errno=True)

Sockets = Mapping[str, socket.socket]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a worker: two in bytes, and a number."""

    file_size: int = FILE_SIZE
    address_space: int = ADDRESS_SPACE
    open_files: int = OPEN_FILES


@contextmanager
def listening(directory: Path) -> Iterator[Sockets]:
    """Sockets of all kinds that accept connections; one of them is in `directory`."""
    addresses: dict[str, tuple[int, int, tuple[str, int] | str]] = {
        "tcp": (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
        "udp": (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
        "path": (socket.AF_UNIX, socket.SOCK_STREAM, str(directory / "s")),
        "abstract": (socket.AF_UNIX, socket.SOCK_STREAM, f"\0{directory}"[:100]),
    }
    with ExitStack() as stack:
        made = {}
        for name, (family, kind, address) in addresses.items():
            made[name] = stack.enter_context(socket.socket(family, kind))
            made[name].bind(address)
            if kind == socket.SOCK_STREAM:
                made[name].listen(100)
        (directory / "s").chmod(0o777)
        yield made


def attacked_by(
    owner: int, outside: Path, sockets: Sockets, limits: Limits | None = None
) -> Target:
    """Files of the user `owner` in the new directory `outside`, and the sockets."""
    limits = limits or Limits()
    outside.mkdir()
    for name in ("secret", "program", "owned", "removable", "truncatable"):
        (outside / name).write_text("content\n")
        (outside / name).chmod(0o600)
    for path in (outside, *outside.iterdir()):
        os.chown(path, owner, owner)
    return Target(
        outside,
        os.getpid(),
        ctypes.addressof(_MEMORY),
        sockets["tcp"].getsockname()[1],
        sockets["udp"].getsockname()[1],
        sockets["path"].getsockname(),
        sockets["abstract"].getsockname().decode(),
        _handle(outside / "secret").hex(),
        limits.file_size,
        limits.address_space,
        limits.open_files,
    )


def metadata(target: Target) -> dict[str, tuple[int, int, int, int, int]]:
    """The metadata of all files outside of the staging area."""
    found = {each.name: each.lstat() for each in target.outside.iterdir()}
    return {
        name: (each.st_mode, each.st_uid, each.st_size, each.st_mtime_ns, each.st_nlink)
        for name, each in found.items()
    }


def _handle(path: Path) -> bytes:
    """The file handle of `path`, by which root can open it anywhere on its file system."""
    handle = ctypes.create_string_buffer((128).to_bytes(4, "little"), 136)
    number = ctypes.c_int()
    if _libc.name_to_handle_at(-100, os.fsencode(path), handle, ctypes.byref(number), 0):
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    return handle.raw
