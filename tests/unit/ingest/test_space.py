"""Messages about full disks, on real file systems that are full."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.command import publisher
from tests.components import require_mounts, run, unmount_below
from tests.layer_builder import directory, file, image, layer, write_layout

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Makes a tmpfs with the given options."""
    require_mounts()
    point = tmp_path / "small"
    point.mkdir()
    with ExitStack() as stack:
        stack.callback(unmount_below, point)

        def make(options: str) -> Path:
            run("mount", "-t", "tmpfs", "-o", options, "tmpfs", point)
            return point

        yield make


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    many = [file(f"file{number}", os.urandom(10_000)) for number in range(300)]
    return write_layout(image(layer(*many)), tmp_path / "layout", "1")


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        ("size=1m", "are missing"),
        ("size=3500k", "are missing"),
        ("size=100m,nr_inodes=100", "inodes"),
    ],
)
def test_a_full_disk_is_explained_and_leaves_the_tree_as_it_was(
    mount: Mount, layout: Path, options: str, reported: str
) -> None:
    point = mount(options)
    result = publisher("ingest-image", f"oci:{layout}:1", "--repository", point / "images")
    assert result.code == 1
    assert "cannot store an image in" in result.err and reported in result.err, result.err
    assert {path.name for path in (point / "images").iterdir()} == {".metadata"}
    assert not list((point / "images/.metadata/.publisher/sessions").iterdir())
    run("mount", "-o", "remount,size=100m,nr_inodes=10000", point)
    again = publisher("ingest-image", f"oci:{layout}:1", "--repository", point / "images")
    assert again.code == 0, again.err
    assert (point / "images/local/layout:1/file299").exists()


@pytest.mark.parametrize("options", ["size=100m,nr_inodes=300", "size=1060k"])
def test_a_disk_that_is_full_only_when_the_image_is_linked_is_explained_as_well(
    mount: Mount, tmp_path: Path, options: str
) -> None:
    point = mount(options)
    directories = [directory(f"directory{number}") for number in range(200)]
    built = image(layer(file("file", os.urandom(1_000_000)), *directories))
    source = write_layout(built, tmp_path / "layout", "1")
    result = publisher("ingest-image", f"oci:{source}:1", "--repository", point / "images")
    assert result.code == 1 and "publishing" in result.err, result.err
    assert "cannot store an image in" in result.err and "[Errno" not in result.err, result.err
    run("mount", "-o", "remount,size=100m,nr_inodes=10000", point)
    again = publisher("ingest-image", f"oci:{source}:1", "--repository", point / "images")
    assert again.code == 0 and "layer sha256" not in again.err, "what was fetched was kept"
