"""File systems of many kinds, mounted for a test: loop mounts, FUSE, overlays."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.components import program, require, require_mounts, run

_Make = Callable[[Path, Path], None]
_IMAGE_BYTES = 320 * 2**20


def _loop(*make: str) -> _Make:
    def mount(folder: Path, point: Path) -> None:
        image = folder / "disk"
        with image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        run(program(make[0]), *make[1:], image)
        run("mount", "-o", "loop", image, point)

    return mount


def _bindfs(folder: Path, point: Path) -> None:
    (folder / "source").mkdir()
    run(program("bindfs"), folder / "source", point)


def _unionfs(folder: Path, point: Path) -> None:
    (folder / "source").mkdir()
    run(program("unionfs"), "-o", "cow,allow_other", f"{folder}/source=RW", point)


def _sshfs(folder: Path, point: Path) -> None:
    """An sshfs whose server is a child process, without a network."""
    (folder / "source").mkdir()
    server = Path("/usr/lib/openssh/sftp-server")
    require("sshfs")
    ssh = folder / "ssh"
    ssh.write_text(f"#!/bin/sh\nexec {shlex.quote(str(server))}\n")
    ssh.chmod(0o755)
    run("sshfs", "-o", f"ssh_command={ssh},allow_other", f"host:{folder}/source", point)


def _fuse_overlayfs(folder: Path, point: Path) -> None:
    run(program("fuse-overlayfs"), "-o", _overlay_options(folder), point)


def _overlay(folder: Path, point: Path) -> None:
    run("mount", "-t", "overlay", "overlay", "-o", _overlay_options(folder), point)


def _overlay_options(folder: Path) -> str:
    # An overlay's upper layer cannot be on an overlay itself, which /tmp of a container is.
    for name in ("lower", "upper", "work"):
        (folder / name).mkdir(exist_ok=True)
    return f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"


MAKERS: dict[str, _Make] = {
    "ext2": _loop("mkfs.ext2", "-q", "-F"),
    "ext3": _loop("mkfs.ext3", "-q", "-F"),
    "ext4": _loop("mkfs.ext4", "-q", "-F", "-O", "^has_journal"),
    "ext4 with inodes of 128 bytes": _loop("mkfs.ext4", "-q", "-F", "-I", "128"),
    "xfs without bigtime": _loop("mkfs.xfs", "-q", "-f", "-m", "bigtime=0"),
    "bindfs": _bindfs,
    "unionfs-fuse": _unionfs,
    "sshfs": _sshfs,
    "fuse-overlayfs": _fuse_overlayfs,
    "overlayfs": _overlay,
}


@dataclass(frozen=True, slots=True)
class LinkLimit:
    """A directory on a file system that limits the links of a file, and the limit."""

    folder: Path
    most: int


@contextmanager
def file_system(kind: str, folder: Path) -> Iterator[Path]:
    """A new, empty file system of one of the kinds of MAKERS, mounted below `folder`."""
    require_mounts()
    folder.mkdir(exist_ok=True)
    point = folder / "mounted"
    point.mkdir()
    MAKERS[kind](folder, point)
    try:
        yield point
    finally:
        if subprocess.run(["umount", point], capture_output=True).returncode != 0:
            run("umount", "--lazy", point)  # a process of the test still has it open
        assert not os.path.ismount(point)


@contextmanager
def full_temporary_files(folder: Path) -> Iterator[None]:
    """Let Python's temporary files be on a disk of this process that has 64 kB only."""
    require_mounts()
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(folder))
            yield
    finally:
        run("umount", folder)
