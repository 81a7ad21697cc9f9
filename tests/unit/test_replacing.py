"""A file is replaced as a whole or not at all, and nothing remains beside it."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from publisher.replacing import replace_file
from tests.command import publisher


def test_a_file_is_replaced_with_its_mode_and_a_failure_keeps_the_earlier_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    umask = os.umask(0o027)
    try:
        for mode, expected in ((None, 0o640), (0o755, 0o755), (0o600, 0o600)):
            replace_file(path, b"before", mode)
            assert path.stat().st_mode & 0o7777 == expected
    finally:
        os.umask(umask)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as a disk that becomes full
    try:
        with pytest.raises(OSError, check=lambda error: error.errno == errno.EFBIG):
            replace_file(path, b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"before"
    link = tmp_path / "link"
    link.symlink_to(path)
    replace_file(link, b"after")
    assert (link.is_symlink(), path.read_bytes(), link.read_bytes()) == (False, b"before", b"after")
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "directory", b"")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["directory", "file", "link"]


def test_a_report_that_cannot_be_written_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text("version: 2\nimages: [debian]\n")
    for target, hint in (
        ("missing/report", "name a file that this user may write"),
        ("/dev/full", "free space on its file system"),
    ):
        result = publisher(
            "check", "l.yaml", "--offline", "--report", f"json={target}", cwd=tmp_path
        )
        assert (result.code, f"cannot write {target}\n" in result.err) == (1, True)
        assert f"  try: {hint}\n" in result.err
