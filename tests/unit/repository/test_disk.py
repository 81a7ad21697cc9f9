"""Operations on a disk: modes that readers need, nothing overwritten, no link followed."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.repository.disk import (
    make_directories,
    remove_tree,
    sync_directory,
    sync_filesystem,
    write_new_file,
)
from tests.confined import ORDINARY_USER, become_an_ordinary_user, in_a_child
from tests.trees import describe_tree


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.usefixtures("umask")
def test_directories_are_open_to_readers_whatever_the_umask_is(tmp_path: Path) -> None:
    make_directories(tmp_path / "a/b/c")
    assert [mode(tmp_path / path) for path in ("a", "a/b", "a/b/c")] == [0o755] * 3


def test_an_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    make_directories(tmp_path / "a/b")
    assert (mode(tmp_path / "a"), mode(tmp_path / "a/b")) == (0o700, 0o755)


def test_two_writers_may_make_the_same_directories(tmp_path: Path) -> None:
    errors: list[OSError] = []
    start = threading.Barrier(4)

    def make() -> None:
        for number in range(50):
            start.wait(10)
            try:
                make_directories(tmp_path / f"{number}/a/b/c")
            except OSError as error:
                errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert all((tmp_path / f"{number}/a/b/c").is_dir() for number in range(50))


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("wanted", [0o644, 0o600])
def test_a_file_gets_exactly_its_mode(tmp_path: Path, wanted: int) -> None:
    write_new_file(tmp_path / "file", b"content", wanted)
    assert mode(tmp_path / "file") == wanted
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_file_is_never_written_over_or_through_anything(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "link").symlink_to("victim")
    (tmp_path / "dangling").symlink_to("elsewhere")
    for name in ("victim", "link", "dangling"):
        with pytest.raises(FileExistsError):
            write_new_file(tmp_path / name, b"new")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "elsewhere").exists()


def test_an_ordinary_user_removes_directories_without_permissions(tmp_path: Path) -> None:
    """A compromised worker may leave them: they would stay in the trash forever."""
    for permissions in (0, 0o555, 0o200):
        place = tmp_path / f"{permissions:o}"
        for directory in ("tree/a/b", "tree/c"):
            (place / directory / "d").mkdir(parents=True)
            (place / directory / "d/file").touch()
        for directory in ("tree/a/b/d", "tree/a/b", "tree/c", "tree"):
            (place / directory).chmod(permissions)
        if os.geteuid() == 0:
            for path in (place, *place.rglob("*")):
                os.chown(path, ORDINARY_USER, -1)

        def remove(_: int, place: Path = place) -> None:
            os.chdir(place)  # what is above belongs to another user
            become_an_ordinary_user()
            remove_tree(Path("tree"))

        assert in_a_child(remove) == ""
        assert not list(place.iterdir())


def test_links_are_removed_and_never_their_targets(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub/file").write_text("precious")
    before = describe_tree(outside)
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/up").symlink_to("../../outside")
    (tree / "a/absolute").symlink_to(outside / "sub")
    (tree / "a/loop").symlink_to("loop")
    (tree / "hard").hardlink_to(outside / "sub/file")
    link = tmp_path / "link"
    link.symlink_to("outside")
    remove_tree(tree)
    remove_tree(link)
    remove_tree(tmp_path / "missing")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside"]
    assert {p: n.sha256 for p, n in describe_tree(outside).items()} == {
        p: n.sha256 for p, n in before.items()
    }


@pytest.mark.parametrize("sync", [sync_directory, sync_filesystem])
def test_syncing_a_path_that_is_not_a_directory_is_an_error(tmp_path: Path, sync: object) -> None:
    assert callable(sync)
    sync(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "nothing")
