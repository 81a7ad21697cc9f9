"""Something else in the place of a record: one unreadable image, and no command that waits."""

from __future__ import annotations

import ast
import errno
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from publisher.tree.record import InvalidRecord
from publisher.verify.findings import Kind
from publisher.verify.run import verify
from tests.command import Result, publisher
from tests.damaged_tree import (
    ARCHIVE,
    LOCAL,
    SECOND,
    Place,
    Tree,
    follow_hints,
    prepared_tree,
    published,
)

RECORDS = (layout.MANIFEST_FILE, layout.CONFIG_FILE, layout.PUBLICATION_FILE)
OTHERS = {
    "pins": layout.PINS,
    "schedule": layout.REMOVE_SCHEDULE,
    "settings": layout.REPOSITORY_SETTINGS,
}


@pytest.fixture(scope="module")
def pristine() -> Iterator[Tree]:
    with prepared_tree() as tree:
        yield tree


@pytest.fixture
def tree(pristine: Tree) -> Tree:
    """To be damaged."""
    pristine.restore()
    return pristine


def call(tree: Tree, *words: str | Path) -> Result:
    """Run a command in a process of its own, which a test can end if it waits."""
    result = publisher(*words, "--repository", tree.root, home=tree.folder)
    assert result.code in (0, 1, 3), (words, result)
    return result


@pytest.mark.parametrize("place", Place)
@pytest.mark.parametrize("file_name", RECORDS)
def test_what_is_not_a_file_makes_one_image_unreadable(
    tree: Tree, file_name: str, place: Place
) -> None:
    before = published(tree)
    place.make(tree.root / layout.image_metadata(LOCAL) / file_name)
    listed = call(tree, "list")
    shown = call(tree, "show", LOCAL)
    if file_name != layout.CONFIG_FILE:
        assert (listed.code, shown.code) == (1, 1)
        assert f"{place}, not a file" in listed.out + listed.err
    assert all(name in listed.out + listed.err for name in tree.names)
    found = call(tree, "verify")
    assert found.code == 1
    assert f"{file_name}: it is {place}, not a file" in found.out
    assert call(tree, "show", SECOND).code == 0
    assert call(tree, "remove", tree.web).code == 0
    assert call(tree, "restore", tree.web).code == 0
    call(tree, "gc", "--now", "--dry-run")
    call(tree, "gc")
    follow_hints(tree, found)
    assert published(tree) == before


@pytest.mark.parametrize("place", Place)
@pytest.mark.parametrize("file_name", RECORDS)
def test_the_next_ingest_replaces_what_is_not_a_file(
    tree: Tree, file_name: str, place: Place
) -> None:
    before = published(tree)
    place.make(tree.root / layout.image_metadata(LOCAL) / file_name)
    assert call(tree, "ingest", tree.wishes).code == 0
    assert call(tree, "verify", "--deep").code == 0
    assert published(tree) == before


@pytest.mark.parametrize("place", Place)
@pytest.mark.parametrize("what", OTHERS)
def test_what_is_not_a_file_is_reported_like_a_damaged_record_of_the_repository(
    tree: Tree, what: str, place: Place
) -> None:
    before = published(tree)
    place.make(tree.root / OTHERS[what])
    for command in (("list",), ("show", LOCAL), ("ingest", tree.wishes), ("remove", ARCHIVE)):
        call(tree, *command)
    assert call(tree, "gc").code == (0 if what == "settings" else 3)
    found = call(tree, "verify")
    assert f"it is {place}, not a file" in found.out
    follow_hints(tree, found)
    assert published(tree) == before


@pytest.mark.parametrize("file_name", RECORDS)
def test_a_record_that_the_user_may_not_read_makes_one_image_unreadable(
    tree: Tree, file_name: str
) -> None:
    path = tree.root / layout.image_metadata(LOCAL) / file_name
    path.chmod(0)
    for parent in (tree.root, *tree.root.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    listed, shown, found = (
        as_ordinary_user(tree, *words) for words in (("list",), ("show", LOCAL), ("verify",))
    )
    if file_name != layout.CONFIG_FILE:
        assert (listed.code, shown.code) == (1, 1)
        assert f"{file_name}: permission denied (chmod a+r {path})" in listed.out + listed.err
    assert all(name in listed.out + listed.err for name in tree.names)
    assert found.code == 1
    assert f"{file_name}: cannot be read: permission denied" in found.out
    assert f"try: chmod a+r {path}" in found.out


def test_searches_go_on_beside_what_the_user_may_not_read(tree: Tree) -> None:
    for parent in (tree.root, *tree.root.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    layers = json.loads((tree.root / layout.manifest_file(LOCAL)).read_bytes())["layers"]
    for path in (layout.manifest_file(LOCAL), layout.layer_index(layers[0]["digest"])):
        (tree.root / path).chmod(0)
        for search in (("*",), ("--package", "*")):
            result = as_ordinary_user(tree, "find", *search)
            assert (result.code, f"{LOCAL}: cannot " in result.err) == (1, True), result.err
            assert "permission denied" in result.err and "publish as" not in result.err
        (tree.root / path).chmod(0o644)


def test_a_state_that_the_user_may_not_read_is_unknown(tree: Tree) -> None:
    for parent in (tree.root, *tree.root.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    for command in ("runs", "status"):  # the state of the tests is in a directory of mode 0700
        result = as_ordinary_user(tree, command)
        assert (result.code, "no state of a run" in result.err) == (0, True), result.err


def as_ordinary_user(tree: Tree, *words: str) -> Result:
    """Run a command in a fork of this process, as a user who does not own the tree."""
    if os.geteuid() != 0:
        return tree.run(*words)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            result = tree.run(*words)
            text = repr((result.code, result.out, result.err))
            os.write(writing, text.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    return Result(*ast.literal_eval(data.decode()))


def why_unreadable(repository: DirectoryRepository, path: str) -> str:
    with pytest.raises(InvalidRecord) as caught:
        repository.read(path)
    assert (
        caught.value.path == path and caught.value.why == f"it is {caught.value.found}, not a file"
    )
    return caught.value.why


def test_nothing_but_a_file_is_opened_for_reading(tmp_path: Path) -> None:
    (tmp_path / layout.METADATA).mkdir()
    repository = DirectoryRepository(RepositoryURL.parse(f"dir:{tmp_path}"))
    for place in Place:
        place.make(tmp_path / place)
        assert why_unreadable(repository, place) == f"it is {place}, not a file"
    (tmp_path / "circle").symlink_to("circle")
    circle = "it is a symbolic link that leads to itself, not a file"
    assert why_unreadable(repository, "circle") == circle
    assert why_unreadable(repository, "/dev/null") == "it is a device, not a file"
    (tmp_path / "link").symlink_to(__file__)
    assert repository.read("link") == Path(__file__).read_bytes()


class _Observed(DirectoryRepository):
    """Counts how often each record is read, and cannot read those at `broken`."""

    broken = ""

    def __init__(self, url: RepositoryURL) -> None:
        super().__init__(url)
        self.reads: Counter[str] = Counter()

    def read(self, path: str) -> bytes | None:
        self.reads[path] += 1
        if path == self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(path)


def test_a_survey_reads_the_record_of_an_image_once_also_if_the_disk_fails(tree: Tree) -> None:
    repository = _Observed(RepositoryURL.parse(f"dir:{tree.root}"))
    assert verify(repository).sound
    users = [path for path in repository.reads if path.startswith(f"{layout.IMAGES}/")]
    assert len(users) >= 3
    assert {repository.reads[path] for path in users} == {1}

    repository.broken = users[0]
    report = verify(repository, deep=True)
    assert [(f.kind, f.path) for f in report.findings if f.path == users[0]] == [
        (Kind.RECORD_DAMAGED, users[0]),
        (Kind.USERS_MISSING, users[0]),
    ]
