"""Messages about full disks, on real file systems that are full."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.command import publisher
from tests.components import program, require_mounts, run, unmount_below
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


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Mount]:
    """Makes an ext4 of 8 MB with the given options of mkfs."""
    require_mounts()
    point = tmp_path / "disk"
    point.mkdir()
    with ExitStack() as stack:

        def make(options: str) -> Path:
            file = tmp_path / "disk.image"
            file.write_bytes(b"")
            os.truncate(file, 8_000_000)
            run(program("mkfs.ext4"), "-q", "-F", *options.split(), file)
            run("mount", "-o", "loop", file, point)
            stack.callback(unmount_below, point)
            return point

        yield make


def test_a_full_disk_is_not_taken_for_a_lack_of_inodes_after_the_clean_up(
    ext4: Mount, tmp_path: Path
) -> None:
    """The download is small, and what it was unpacked to is deleted before the error is shown."""
    point = ext4("-O ^has_journal -m 0")
    built = image(layer(file("large", b"text" * 5_000_000)))
    source = write_layout(built, tmp_path / "layout", "1")
    result = publisher("ingest-image", f"oci:{source}:1", "--repository", point / "images")
    assert result.code == 1
    assert "No space left on device; only 0." in result.err, result.err
    assert "were free at that moment" in result.err and "inodes" not in result.err
    assert os.statvfs(point).f_bavail * 4 > os.statvfs(point).f_blocks * 3


def test_a_disk_without_a_free_inode_is_not_called_full(ext4: Mount, layout: Path) -> None:
    point = ext4("-N 100")
    result = publisher("ingest-image", f"oci:{layout}:1", "--repository", point / "images")
    assert result.code == 1
    assert "all inodes are in use" in result.err and "missing" not in result.err, result.err
    assert os.statvfs(point).f_ffree > 50
