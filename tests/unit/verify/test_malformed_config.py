"""An image that an earlier release published with a malformed config can be removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.tree import layout
from publisher.tree.publication import Publication
from tests.command import publisher, succeed
from tests.damaged_tree import hints
from tests.layer_builder import Image, digest_of, file, image, layer, write_layout

SHARED = layer(file("etc/os", b"base"))
BUILT, OTHER = image(SHARED, layer(file("motd", b"1"))), image(SHARED)
NAME = "local/tool:1"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two images that share a layer; the config of one has an entry point that is a number."""
    tree = tmp_path / "images"
    for built, tag in ((BUILT, "1"), (OTHER, "2")):
        write_layout(built, tmp_path / "tool", tag)
        succeed("ingest-image", f"oci:{tmp_path}/tool:{tag}", "--repository", tree)
    config = json.loads(BUILT.config)
    config["config"] = {"Entrypoint": 5}
    exchange(tree, BUILT, json.dumps(config).encode())
    publisher("verify", "--repair", "--repository", tree)  # records and the public link
    return tree


def exchange(tree: Path, built: Image, config: bytes) -> None:
    """Give the published image this config, in all its metadata."""
    manifest = json.loads(built.manifest.data)
    manifest["config"] |= {"digest": digest_of(config), "size": len(config)}
    data = json.dumps(manifest).encode()
    (tree / layout.manifest_file(NAME)).write_bytes(data)
    (tree / layout.config_file(NAME)).write_bytes(config)
    path = tree / layout.publication_file(NAME)
    value = json.loads(path.read_bytes())
    value |= {"manifestDigest": digest_of(data), "imageId": digest_of(config)}
    path.write_bytes(json.dumps(value).encode())
    Publication.parse(path.read_bytes(), "")
    flat = tree / layout.flat_image(digest_of(config))
    flat.parent.mkdir(parents=True, exist_ok=True)
    (tree / layout.flat_image(built.image_id)).rename(flat)
    (tree / layout.image_users(built.image_id)).unlink()


def test_the_hint_for_a_malformed_config_removes_the_image_and_ends_with_a_sound_tree(
    tree: Path,
) -> None:
    found = publisher("verify", "--deep", "--quiet", "--repository", tree)
    assert found.code == 1, found
    assert [line.split(":")[1] for line in found.out.splitlines() if "try:" not in line] == [
        " config-damaged"
    ]
    commands = hints(found)
    assert len(commands) == 2
    for words in commands:
        succeed(*words[1:], "--repository", tree)
    assert succeed("verify", "--deep", "--quiet", "--repository", tree).out == ""
    assert (tree / "local/tool:2/etc/os").read_bytes() == b"base"
    assert not (tree / layout.image_metadata(NAME)).exists()
