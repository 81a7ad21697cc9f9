"""Publishing into a file system that is an overlay itself, as a container's own root is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import succeed
from tests.components import require_mounts, run, unmount_below
from tests.layer_builder import directory, file, image, layer, opaque, whiteout, write_layout

pytestmark = pytest.mark.system


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """A writable overlayfs."""
    require_mounts()
    for name in ("lower", "upper", "work", "mnt"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    run("mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "mnt")
    yield tmp_path / "mnt"
    unmount_below(tmp_path)


def test_an_image_with_deletions_is_published_though_whiteouts_cannot_be_stored(
    overlay: Path, tmp_path: Path
) -> None:
    with pytest.raises(PermissionError):
        os.mknod(overlay / "whiteout", 0o20000, os.makedev(0, 0))
    base = layer(
        directory("d"), file("d/gone", b"gone"), directory("o"), file("o/hidden"), file("kept")
    )
    top = layer(whiteout("d/gone"), directory("o"), opaque("o"), file("o/seen"))
    write_layout(image(base, top), tmp_path / "sample", "1")
    result = succeed("ingest-image", f"oci:{tmp_path}/sample:1", "--repository", overlay / "tree")
    assert result.err.count("refused a whiteout") == 1
    assert "flat images are complete" in result.err
    public = overlay / "tree/local/sample:1"
    names = {str(path.relative_to(public)) for path in public.rglob("*")}
    assert {"d", "kept", "o", "o/seen"} <= names  # and what runtimes need
    assert names.isdisjoint({"d/gone", "o/hidden"})
