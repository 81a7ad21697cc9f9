"""Squashfs files: what they contain, and the errors of the program that writes them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from publisher.entry import Entry, EntryType
from publisher.runtimes.squashfs_file import (
    PROGRAM,
    Planned,
    SquashfsError,
    program_version,
    write_squashfs,
)
from tests.components import require, require_root, run

SECOND = 10**9
TREE: list[Planned] = [
    (Entry("", EntryType.DIRECTORY, 0o751, 5, 6, mtime_ns=7 * SECOND + 1), ()),
    (Entry("a", EntryType.DIRECTORY, 0o1777, 1, 2, mtime_ns=-SECOND), ()),
    (Entry("a/" + "ä" * 100, EntryType.FILE, 0o4640, 70_000, 80_000, 5), [b"he", b"llo"]),
    (Entry("a/\udcff\n", EntryType.FILE, 0o600, xattrs={"user.k": b"\0v\n=", "user.l": b""}), ()),
    (Entry("fifo", EntryType.FIFO, 0o600), ()),
    (Entry("hard", EntryType.HARDLINK, target="a/" + "ä" * 100), ()),
    (Entry("late", EntryType.FILE, 0o644, mtime_ns=2**40 * SECOND), ()),
    (Entry("link", EntryType.SYMLINK, target="/" + "y" * 200, mtime_ns=9 * SECOND), ()),
    (Entry("null", EntryType.CHARACTER_DEVICE, 0o666, device=(1, 3)), ()),
    (Entry("zeros", EntryType.FILE, 0o644, size=1 << 20), [bytes(1 << 20)]),
]


def test_everything_in_a_tree_is_kept_and_equal_trees_give_equal_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_root()
    require(PROGRAM, "unsquashfs")
    write_squashfs(tmp_path / "one", iter(TREE), 42)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    write_squashfs(tmp_path / "two", iter(TREE), 42)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    out = tmp_path / "out"
    run("unsquashfs", "-quiet", "-no-progress", "-dest", out, tmp_path / "one")
    for entry, content in TREE:
        if entry.type is EntryType.HARDLINK:
            assert (out / entry.path).samefile(out / entry.target)
            continue
        found = (out / entry.path).lstat()
        assert (found.st_uid, found.st_gid) == (entry.uid, entry.gid), entry.path
        seconds = min(max(entry.mtime_ns // SECOND, 0), 2**32 - 1)
        assert found.st_mtime_ns == seconds * SECOND, entry.path
        if entry.type is EntryType.SYMLINK:
            assert os.readlink(out / entry.path) == entry.target
            continue
        assert stat.S_IMODE(found.st_mode) == entry.mode, entry.path
        if entry.type is EntryType.FILE:
            assert (out / entry.path).read_bytes() == b"".join(content)
        for name, value in entry.xattrs.items():
            assert os.getxattr(out / entry.path, name) == value
    assert (out / "null").lstat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((out / "fifo").lstat().st_mode)
    assert "1970" in run("unsquashfs", "-s", tmp_path / "one").splitlines()[1]


def test_errors_name_the_file_and_the_program(tmp_path: Path) -> None:
    require(PROGRAM)
    with pytest.raises(SquashfsError, match=r"tar2sqfs ended with .*No such file"):
        write_squashfs(tmp_path / "missing/file", iter(TREE), 0)
    short: list[Planned] = [TREE[0], (Entry("a", EntryType.FILE, 0o644, size=9), [b"x"])]
    with pytest.raises(SquashfsError, match="'a' to a squashfs file: it has 1 bytes, expected 9"):
        write_squashfs(tmp_path / "file", iter(short), 0)


def test_the_version_of_the_program_is_the_one_that_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(PROGRAM)
    assert program_version() == run(PROGRAM, "--version").splitlines()[0]
    other = tmp_path / PROGRAM
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SquashfsError, match="is not installed"):
        program_version()
    for printed in ("", "tar2sqfs", "tar2sqfs (squashfs-tools-ng) \033[1m", "x" * 1000):
        other.write_text(f"#!/bin/sh\necho '{printed}'\n")
        other.chmod(0o755)
        with pytest.raises(SquashfsError, match="prints no version"):
            program_version()
