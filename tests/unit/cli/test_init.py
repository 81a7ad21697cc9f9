"""`publisher init`: every option of the policy reaches the published trees."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.command import publisher, succeed
from tests.layer_builder import character_device, file, image, layer, write_layout

LAYER = layer(
    file("su", mode=0o4700, uid=7, gid=8, xattrs={"user.a": b"1"}), character_device("null", 1, 3)
)


def published(tmp_path: Path, *options: str) -> os.stat_result:
    """Publish under these options; the set-user-ID file's status."""
    images = tmp_path / "images"
    succeed("init", f"dir:{images}", *options)
    layout = write_layout(image(LAYER), tmp_path / "su", "1")
    succeed("ingest-image", f"oci:{layout}:1", "--repository", images)
    return (images / "local/su:1/su").stat()


def test_an_option_stays_in_force_when_another_one_is_given(tmp_path: Path) -> None:
    images = f"dir:{tmp_path}/images"
    succeed("init", images, "--setuid", "keep", "--readable")
    status = published(tmp_path, "--xattrs", "drop", "--limit", "layer-entries=5")
    assert stat.S_IMODE(status.st_mode) == 0o4755
    assert os.listxattr(tmp_path / "images/local/su:1/su") == []
    shown = succeed("init", images).out
    assert "nothing to change" in shown
    for line in "setuid:   keep", "xattrs:   drop", "readable: for all users", "layer-entries=5":
        assert line in shown


def test_owners_and_devices_are_as_given_where_root_publishes(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        assert published(tmp_path, "--owner", "11:12").st_uid == os.geteuid()
        return
    status = published(tmp_path, "--owner", "11:12", "--devices", "keep")
    assert (status.st_uid, status.st_gid) == (11, 12)
    assert stat.S_ISCHR((tmp_path / "images/local/su:1/null").lstat().st_mode)


def test_a_limit_refuses_what_exceeds_it(tmp_path: Path) -> None:
    succeed("init", f"dir:{tmp_path}/images", "--limit", "layer-entries=1")
    layout = write_layout(image(LAYER), tmp_path / "su", "1")
    result = publisher("ingest-image", f"oci:{layout}:1", "--repository", tmp_path / "images")
    assert result.code == 1
    assert "more than 1 entries" in result.err


@pytest.mark.parametrize(
    "option",
    ["--owner=1", "--owner=-1:0", "--owner=0:4294967295", "--limit=patience=1", "--limit=depth=x"],
)
def test_an_impossible_policy_is_refused_before_anything_is_written(
    option: str, tmp_path: Path
) -> None:
    result = publisher("init", f"dir:{tmp_path}/images", option)
    assert result.code == 2
    assert "cannot use --" in result.err
    assert "initialized" not in result.out


@pytest.mark.parametrize("verb", ["init", "ingest-image"])
@pytest.mark.parametrize(
    "inside", ["docker.io", "local/su:1/new", ".flat/new", ".metadata/new", "a-link"]
)
def test_a_repository_inside_a_published_tree_is_refused(
    tmp_path: Path, verb: str, inside: str
) -> None:
    images = tmp_path / "images"
    published(tmp_path)
    (tmp_path / "a-link").symlink_to(images / "local")
    place = images / inside if inside != "a-link" else tmp_path / "a-link" / "new"
    before = sorted(path for path in images.rglob("*"))
    arguments = (
        ("init", f"dir:{place}")
        if verb == "init"
        else ("ingest-image", f"oci:{tmp_path}/su:1", "--repository", place)
    )
    result = publisher(*arguments)
    assert result.code == 3
    assert f"it lies inside the published tree {images}" in result.err
    assert sorted(path for path in images.rglob("*")) == before
    succeed("init", f"dir:{images}")
