"""Directories that a user may not look into: each is named, and everything else is shown."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.repository.directory.repository import DirectoryRepository
from publisher.repository.reading import count_usage
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from publisher.tree.record import InvalidRecord
from tests.command import Result, run_here, succeed
from tests.components import require_root
from tests.confined import become_an_ordinary_user, in_a_child
from tests.layer_builder import file, image, layer, write_layout

ONE, TWO = "local/one:1", "local/two:1"
DPKG = b"Package: liba\nStatus: install ok installed\nVersion: 1.0-1\nArchitecture: all\n\n"
OWN = layer(file("var/lib/dpkg/status", DPKG))
"""The layer of the second image."""


@pytest.fixture
def root() -> Iterator[Path]:
    """Two images in a repository that other users can reach, and a directory of such a user."""
    require_root()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        base = layer(file("name", b"name"))
        for name, built in (("one", image(base)), ("two", image(base, OWN))):
            write_layout(built, root / name, "1")
            succeed("ingest-image", f"oci:{root}/{name}:1", "--repository", root / "images")
        metadata = root / "images" / layout.METADATA
        shutil.copytree(metadata / TWO, metadata / "quay.io/team/two:1")
        (root / "home").mkdir(mode=0o777)
        (root / "home").chmod(0o777)
        yield root


def as_an_ordinary_user(root: Path, *commands: tuple[str, ...]) -> list[Result]:
    """Run the commands in the process of an ordinary user."""
    home = str(root / "home")

    def ask(writer: int) -> None:
        become_an_ordinary_user()
        env = {"HOME": home, "XDG_CACHE_HOME": home, "PUBLISHER_STATE": f"{home}/state"}
        found = [run_here(*each, "--repository", root / "images", env=env) for each in commands]
        text = json.dumps([(each.code, each.out, each.err) for each in found])
        os.write(writer, text.encode())

    return [Result(*each) for each in json.loads(in_a_child(ask))]


def test_a_closed_directory_of_images_is_a_problem_and_the_others_are_shown(root: Path) -> None:
    # What the other user may not be able to import is loaded before.
    assert run_here("site", root / "first", "--repository", root / "images").code == 0
    closed = root / "images" / layout.METADATA / "quay.io"
    closed.chmod(0)
    site = str(root / "home/site")
    commands = (
        ("stats", "--output", "csv"),
        ("du", "*"),
        ("find", "name"),
        ("find", "--package", "liba"),
        ("site", site),
        ("list",),
        ("status",),
    )
    for words, found in zip(commands, as_an_ordinary_user(root, *commands), strict=True):
        assert found.code == 1, found
        assert f"permission denied (chmod a+rx {closed})" in found.out + found.err, found
        pages = Path(site, "index.html").read_text() if words[0] == "site" else ""
        assert TWO in found.out or "two:1" in pages, found


def test_a_closed_image_is_named_where_it_is_asked_for(root: Path) -> None:
    closed = root / "images" / layout.image_metadata(ONE)
    closed.chmod(0)
    asked, *others = as_an_ordinary_user(
        root, ("du", ONE), ("packages", ONE), ("du", "local/missing:1"), ("stats",)
    )
    for found in (asked, others[0], others[2]):
        assert (found.code, f"chmod a+rx {closed}" in found.err) == (1, True), found
    assert (others[1].code, "no image is published" in others[1].err) == (1, True)


def test_a_layer_whose_index_may_not_be_read_is_not_called_missing(root: Path) -> None:
    closed = (root / "images" / layout.layer_index(OWN.digest)).parent
    closed.chmod(0)
    commands = (
        ("stats",),
        ("find", "name"),
        ("find", "--package", "liba"),
        ("packages", TWO),
        ("ls", TWO),
        ("diff", ONE, TWO),
    )
    for found in as_an_ordinary_user(root, *commands):
        assert (found.code, "permission denied" in found.err) == (1, True), found
        assert "no index" not in found.err, found


def test_a_closed_directory_of_links_is_a_problem_of_its_images(root: Path) -> None:
    closed = root / "images/local"
    closed.chmod(0)
    stats, packages = as_an_ordinary_user(root, ("stats",), ("find", "--package", "liba"))
    assert (stats.code, f"chmod a+rx {closed}" in stats.err) == (1, True), stats
    assert (packages.code, packages.err) == (0, "")  # they do not depend on it


@pytest.mark.parametrize("mode", [0, 0o711])
def test_what_a_closed_directory_may_contain_never_counts_as_unused(root: Path, mode: int) -> None:
    """With the right to search alone, a user finds no manifest in it, and no names."""
    (root / "images" / layout.METADATA / "quay.io").chmod(mode)

    def ask(writer: int) -> None:
        become_an_ordinary_user()
        try:
            count_usage(DirectoryRepository(RepositoryURL("dir", str(root / "images"))))
        except (InvalidRecord, PermissionError) as error:
            os.write(writer, str(error).encode())

    assert "quay.io" in in_a_child(ask)
