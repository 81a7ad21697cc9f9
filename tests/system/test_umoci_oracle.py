"""A second oracle: what umoci unpacks is what we publish, apart from what is listed here."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings

from publisher.entry import EntryType
from publisher.layers import LayerError, Policy
from publisher.manifest import Descriptor
from tests.components import overlay_mount, require, require_root
from tests.engine import Published, flat_entries, publish
from tests.layer_builder import (
    Layer,
    image,
    write_layout,
)
from tests.real_image import RealImages
from tests.stacks import Draft, stacks
from tests.trees import Tree, assert_same_tree, describe_tree

pytestmark = pytest.mark.system

KEEP = Policy(setuid="keep", devices="keep")
IMAGES = int(os.environ.get("PUBLISHER_STACKS", "300")) // 10


def umoci_unpack(layout: Path, tag: str, bundle: Path) -> Path:
    """The root file system that umoci makes of an image."""
    require_root()
    require("umoci")
    command = ["umoci", "unpack", "--image", f"{layout}:{tag}", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LayerError("umoci refuses", why=done.stderr[-500:])
    return bundle / "rootfs"


def layers_of(layout: Path, tag: str) -> list[Layer]:
    """The layers of an image in a layout; their archives stay compressed."""

    def read(digest: str) -> bytes:
        return (layout / "blobs" / digest.replace(":", "/")).read_bytes()

    index = json.loads((layout / "index.json").read_bytes())
    (descriptor,) = (
        m
        for m in index["manifests"]
        if m.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag
    )
    manifest = json.loads(read(descriptor["digest"]))
    config = json.loads(read(manifest["config"]["digest"]))
    return [
        Layer(
            read(each["digest"]),
            Descriptor(each["mediaType"], each["digest"], each["size"]),
            diff_id,
            b"",
        )
        for each, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True)
    ]


@pytest.mark.parametrize("tag", ["base", "python", "numpy"])
def test_real_images_are_what_umoci_and_overlayfs_make_of_them(
    tag: str, real_images: RealImages, tmp_path: Path
) -> None:
    rootfs = umoci_unpack(real_images.layout, tag, tmp_path / "umoci")
    published = publish(tmp_path / "ours", *layers_of(real_images.layout, tag), policy=KEEP)
    assert_same_tree(published.flat, rootfs, directory_times=True)
    with overlay_mount(published.trees) as shown:
        assert_same_tree(
            published.flat, describe_tree(shown, skip_phantoms=True), directory_times=True
        )


def test_a_zstd_image_is_what_its_gzip_form_is(real_images: RealImages, tmp_path: Path) -> None:
    """Which umoci could not say: it refuses zstd layers."""
    flats = [
        publish(tmp_path / tag, *layers_of(real_images.layout, tag), policy=KEEP).flat
        for tag in ("numpy", "numpy-zstd")
    ]
    assert_same_tree(*flats, directory_times=True)


def as_policy_makes_it(tree: Tree) -> Tree:
    """What policy changes in any tree: owners may do everything; `user.*` attributes alone stay."""
    wider = {"f": 0o600, "d": 0o700}
    return {
        path: replace(
            node,
            mode=node.mode | wider.get(node.type, 0),
            xattrs=tuple(pair for pair in node.xattrs if pair[0].startswith("user.")),
        )
        for path, node in tree.items()
    }


def without_known_differences(draft: Draft) -> Layer:
    """The draft without what umoci, which unpacks all layers into one tree, has to see otherwise.

    Below a symlink of a lower layer umoci follows the link, where overlayfs shows a directory in
    its place. Directories that the archive only implies inherit set-group-ID from the one they are
    made in. And umoci 0.4 takes no zstd.
    """
    members = tuple(
        replace(member, mode=member.mode & ~0o2000)
        for member in draft.members
        if member.typeflag != b"2"
    )
    return replace(draft, members=members, compression="gzip", parts=1).build()


def markers_alone_make_directories(published: Published) -> bool:
    """Whether there is a marker in a directory that no layer has.

    For umoci there is no such directory then; in a layer tree it is needed for the marker to be in.
    """
    for number, upper in enumerate(published.layers):
        lower = flat_entries(*published.layers[:number])
        for path, entry in upper.entries.items():
            parent = path.rpartition("/")[0]
            if entry.type is EntryType.WHITEOUT and parent not in lower:
                return True
            if entry.implicit and entry.opaque and path not in lower:
                return True
    return False


@settings(
    max_examples=IMAGES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(stacks())
def test_any_stack_is_what_umoci_makes_of_it(stack: list[Draft]) -> None:
    layers = [without_known_differences(draft) for draft in stack]
    with tempfile.TemporaryDirectory(prefix="publisher-umoci-") as name:
        place = Path(name)
        try:
            published = publish(place / "ours", *layers, policy=KEEP)
            rootfs = umoci_unpack(
                write_layout(image(*layers), place / "layout"), "latest", place / "umoci"
            )
        except LayerError:
            assume(False)
            raise
        assume(not markers_alone_make_directories(published))
        assert_same_tree(published.flat, as_policy_makes_it(describe_tree(rootfs)))
