"""Write a tree as one squashfs file, through `tar2sqfs`.

Equal trees give equal files on machines with the same release of the program and its libraries.
The program `sqfstar` of squashfs-tools is not used: its releases up to 4.5.1 give the root
directory the current time, and ignore its owner.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from publisher.entry import Entry, EntryType
from publisher.errors import PublisherError
from publisher.repository.cvmfs.tar_header import END, encode, encode_attributes, padding

PROGRAM = "tar2sqfs"
INSTALL = "install the package squashfs-tools-ng"

_LEVEL, _BLOCK = "level=9", "131072"
_OPTIONS = (
    *("--compressor", "zstd", "--comp-extra", _LEVEL, "--block-size", _BLOCK),
    *("--dev-block-size", "4096", "--no-skip", "--quiet"),
)
"""All that determines the bytes of the file beside the tree. Another value is another file."""

FORMAT = 1
"""The number of these options in the record of a file, to be increased with every change."""

COMPRESSOR = f"zstd {_LEVEL} block-size={_BLOCK}"
"""How the content is compressed, in the record of a file."""

_VERSION = re.compile(r"tar2sqfs \(squashfs-tools-ng\) [\x21-\x7e]{1,64}$", re.M)
"""The first line of its output with the option --version."""

_CLOCK = "SOURCE_DATE_EPOCH"
"""The variable with the time of the file system."""

_LATEST = 2**32 - 1
_SECOND = 10**9

Planned = tuple[Entry, Iterable[bytes]]
"""An entry and its content: `entry.size` bytes of a file, nothing of others."""


class SquashfsError(PublisherError):
    """A squashfs file cannot be written."""


def is_available() -> bool:
    """Return whether this machine has the program."""
    return shutil.which(PROGRAM) is not None


def program_version() -> str:
    """Return name and version of the installed program, as it prints them.

    Raises:
        SquashfsError: The program is missing, or prints no version.
    """
    import subprocess

    _require_program()
    done = subprocess.run(
        [PROGRAM, "--version"], capture_output=True, text=True, errors="replace", check=False
    )
    found = _VERSION.match(done.stdout)
    if found is None:
        raise SquashfsError(
            "cannot write a squashfs file",
            why=f"{PROGRAM} --version prints no version of squashfs-tools-ng",
            hint=INSTALL,
        )
    return found.group()


def _require_program() -> None:
    if not is_available():
        raise SquashfsError(
            "cannot write a squashfs file", why=f"{PROGRAM} is not installed", hint=INSTALL
        )


def write_squashfs(place: Path, tree: Iterable[Planned], created: int) -> None:
    """Write `tree` to the file `place`, in place of its content.

    Args:
        place: The file, which need not exist.
        tree: The entries, sorted, the root directory first; hard links after their targets.
        created: The time of the file system, in seconds since 1970.

    Raises:
        SquashfsError: The program is missing or fails, or a file has another size than its entry.
    """
    import subprocess  # both are long to load, and few commands write a file
    import tempfile

    _require_program()
    clock = f"{_CLOCK}={_seconds(created * _SECOND)}"
    command = ["env", clock, PROGRAM, *_OPTIONS, "--force", str(place)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError), process.stdin as out:  # the program's error is reported
                _send(tree, out)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        if code != 0:
            errors.seek(0)
            text = errors.read().decode("utf-8", "replace").strip()
            raise SquashfsError(
                "cannot write a squashfs file",
                why=f"{PROGRAM} ended with {code}: {text.splitlines()[-1] if text else 'silently'}",
                hint=f"check the free space of {place.parent}, and the version of {PROGRAM}",
            )


def _send(tree: Iterable[Planned], out: IO[bytes]) -> None:
    for entry, content in tree:
        time = _seconds(entry.mtime_ns) * _SECOND
        entry = replace(entry, path=entry.path or "./", mtime_ns=time)
        out.write(encode_attributes(entry.xattrs) + encode(entry))
        if entry.type is EntryType.FILE:
            sent = 0
            for piece in content:
                sent += len(piece)
                out.write(piece)
            if sent != entry.size:
                raise SquashfsError(
                    f"cannot write {entry.path!r} to a squashfs file",
                    why=f"it has {sent} bytes, expected {entry.size}",
                    hint="publisher verify --deep --refetch",
                )
            out.write(padding(sent))
    out.write(END)


def _seconds(time_ns: int) -> int:
    """Return the time as squashfs stores it: whole seconds from 1970 to 2106."""
    return min(max(time_ns // _SECOND, 0), _LATEST)
