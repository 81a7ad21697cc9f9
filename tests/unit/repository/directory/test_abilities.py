"""A file system without a needed ability is refused when a repository is opened."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.entry import Entry, EntryType
from publisher.errors import explain
from publisher.repository import RepositoryError
from publisher.repository.descriptors import remove_at
from publisher.repository.directory.repository import DirectoryRepository
from publisher.repository.directory.tree_writer import TreeWriter
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL


def opened(root: Path) -> DirectoryRepository:
    return DirectoryRepository(RepositoryURL("dir", str(root)), writable=True, may_be_new=True)


def failing(code: int) -> Callable[..., None]:
    """A function of `os` that fails with this error number."""

    def fail(path: str | Path, *arguments: object, **named: object) -> None:
        raise OSError(code, os.strerror(code), str(path))

    return fail


@pytest.mark.parametrize(
    ("function", "code", "why"),
    [
        ("symlink", errno.EPERM, "has no symbolic links"),
        ("symlink", errno.ENOSYS, "has no symbolic links"),
        ("utime", errno.ENOENT, "changes the target of a symbolic link"),
        ("chown", errno.ENOENT, "changes the target of a symbolic link"),
    ],
)
def test_a_missing_ability_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int, why: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing(code))
        with pytest.raises(RepositoryError, match=why) as caught:
            opened(tmp_path)
    assert "ext4 or xfs" in caught.value.hint
    assert not list((tmp_path / layout.STATE / "sessions").iterdir())
    opened(tmp_path).close()


def test_a_file_system_that_ignores_case_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: exists(path.with_name(path.name.lower())))
    with pytest.raises(RepositoryError, match="does not distinguish upper and lower case"):
        opened(tmp_path)


def test_a_file_system_that_ignores_modes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "chmod", lambda path, mode: None)
    with pytest.raises(RepositoryError, match="does not store the modes of files"):
        opened(tmp_path)


def test_a_file_system_that_replaces_no_file_by_a_rename_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "rename", failing(errno.EEXIST))
    with pytest.raises(RepositoryError, match="cannot replace a file by renaming another"):
        opened(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_can_be_opened_for_a_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "symlink", failing(code))
    opened(tmp_path).close()


@pytest.mark.parametrize("supported", [True, False])
def test_whether_opaque_directories_can_be_marked_is_tried_on_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    if not supported:
        monkeypatch.setattr(os, "getxattr", failing(errno.ENOTSUP))
    repository = opened(tmp_path)
    assert repository.keeps_xattrs == supported
    repository.close()


def _allow_subdirectories(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Let every directory have at most so many subdirectories, as ext2 allows 32,000."""
    mkdir, rename = os.mkdir, os.rename

    def check(parent: int) -> None:
        if os.fstat(parent).st_nlink - 2 >= most:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))

    def limited_mkdir(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None:
            check(dir_fd)
        mkdir(path, mode, dir_fd=dir_fd)

    def limited_rename(source: str, target: str, **directories: int) -> None:
        if directories and directories["src_dir_fd"] != directories["dst_dir_fd"]:
            check(directories["dst_dir_fd"])
        rename(source, target, **directories)

    monkeypatch.setattr(os, "mkdir", limited_mkdir)
    monkeypatch.setattr(os, "rename", limited_rename)


@pytest.mark.parametrize("most", [3, 4, 12])
def test_a_tree_with_more_directories_than_one_can_have_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    for number in range(3**4):
        place = "/".join(str(number // 3**power % 3) for power in range(4))
        (tmp_path / "tree" / place).mkdir(parents=True)
        (tmp_path / "tree" / place / "file").touch()
    _allow_subdirectories(monkeypatch, most)
    parent = os.open(tmp_path, os.O_RDONLY)
    try:
        remove_at(parent, "tree")
    finally:
        os.close(parent)
    assert not list(tmp_path.iterdir())


def test_a_directory_with_more_subdirectories_than_it_can_have_is_named_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _allow_subdirectories(monkeypatch, 3)
    with TreeWriter(tmp_path / "tree") as writer:
        writer.add(Entry("many", EntryType.DIRECTORY, 0o755))
        with pytest.raises(OSError) as caught:
            for number in range(4):
                writer.add(Entry(f"many/{number}", EntryType.DIRECTORY, 0o755))
    explained = explain(caught.value)
    assert explained.what == "cannot use many/3"
    assert "as many subdirectories as its file system allows" in explained.why
