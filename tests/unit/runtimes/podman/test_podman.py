"""The lists and names of Podman's additional image store."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.oci.digest import digest_of
from publisher.oci.document import Document
from publisher.oci.manifest import distinct_from_top
from publisher.oci.media_types import OCI_CONFIG, OCI_MANIFEST
from publisher.oci.reference import parse_reference
from publisher.runtimes.podman import format as podman
from publisher.runtimes.podman import lists
from publisher.runtimes.podman.format import StoreImage, StoreLayer

NAMES = st.sampled_from(["docker.io/library/a:1", "docker.io/library/a:2", 'odd"name:1', "b:1"])


def document(text: str, media_type: str) -> Document:
    return Document(text.encode(), media_type, digest_of(text.encode()))


def stored(number: int, name: str, depth: int = 2) -> StoreImage:
    """Return an image; images with equal `number // 10` share their lower layers."""
    diff_ids = [digest_of(f"{number // 10} {level}".encode()) for level in range(depth - 1)]
    ids = podman.layer_ids([*diff_ids, digest_of(f"top {number}".encode())])
    layers: list[StoreLayer] = []
    for layer_id in ids:
        parent = layers[-1].id if layers else ""
        layers.append(StoreLayer(layer_id, parent, ".layers/x", "sha256:" + layer_id, 1))
    config, manifest = document(f"c{number}", OCI_CONFIG), document(f"m{number}", OCI_MANIFEST)
    return StoreImage(name, manifest, config, "2026-01-01T00:00:00Z", tuple(layers))


IMAGES = st.lists(st.builds(stored, st.integers(0, 30), NAMES, st.integers(1, 3)), max_size=12)


@given(IMAGES)
def test_edited_lists_equal_those_of_a_naive_implementation(images: list[StoreImage]) -> None:
    layers: bytes | None = None
    entries: bytes | None = None
    expected_layers: dict[str, dict[str, Any]] = {}
    expected_images: dict[str, dict[str, Any]] = {}
    for image in images:
        layers = lists.add_layers(layers, image)
        entries = lists.add_image(entries, image)
        for layer in image.layers:
            expected_layers.setdefault(layer.id, {"id": layer.id, "parent": layer.parent})
        for other in expected_images.values():
            other["names"] = [name for name in other["names"] if name != image.name]
        entry = expected_images.setdefault(image.id, image.to_entry() | {"names": []})
        entry["names"] = sorted({*entry["names"], image.name})
    found_layers = json.loads(layers) if layers else []
    assert [(x["id"], x.get("parent", "")) for x in found_layers] == [
        (x["id"], x["parent"]) for x in expected_layers.values()
    ]
    found_images = json.loads(entries) if entries else []
    assert found_images == list(expected_images.values())


@given(IMAGES, st.sets(st.integers(0, 30)))
def test_after_a_removal_every_image_has_its_layers_and_no_layer_is_left_over(
    images: list[StoreImage], numbers: set[int]
) -> None:
    layers, entries = b"[]", b"[]"
    for image in images:
        layers, entries = lists.add_layers(layers, image), lists.add_image(entries, image)
    gone = {digest_of(f"c{number}".encode()) for number in numbers}

    removal = lists.remove_images(entries, layers, sorted(gone))

    left = json.loads(removal.images)
    assert {entry["id"] for entry in left} == {
        image.id for image in images if image.config.digest not in gone
    }
    by_id = {entry["id"]: entry for entry in json.loads(removal.layers)}
    needed = set()
    for entry in left:
        layer = entry["layer"]
        while layer:
            needed.add(layer)
            layer = by_id[layer].get("parent", "")
    assert needed == by_id.keys()
    for path in removal.paths:
        assert not any(layer in path for layer in needed)
    dropped = {entry["id"] for entry in json.loads(layers)} - needed
    of_base = not by_id  # removed with the last layer
    assert sum("/overlay/l/" in path for path in removal.paths) == len(dropped) + of_base


def test_adding_a_listed_image_changes_nothing() -> None:
    image = stored(1, "a:1")
    layers, entries = lists.add_layers(None, image), lists.add_image(None, image)
    assert lists.add_layers(layers, image) == layers
    assert lists.add_image(entries, image) == entries
    assert lists.remove_name(entries, "b:1") == entries
    assert json.loads(lists.remove_name(entries, "a:1") or b"")[0]["names"] == []
    assert lists.remove_name(None, "a:1") is None


def test_a_list_that_another_tool_wrote_is_continued() -> None:
    other = json.dumps([{"names": ["a:1"], "id": "0" * 64, "created": "x"}]).encode()
    found = json.loads(lists.add_image(other, stored(1, "a:1")))
    assert [(entry["id"], entry["names"]) for entry in found] == [
        ("0" * 64, []),
        (stored(1, "x").id, ["a:1"]),
    ]


def test_ids_and_short_names_have_the_form_that_the_driver_requires() -> None:
    image = stored(1, "a:1", depth=3)
    for layer in image.layers:
        assert len(layer.id) == 64
    for path, text in image.links():
        name = path.rpartition("/")[2]
        assert len(name) == 26 and name.isalnum() and name.isupper()
        assert text == f"../{text.split('/')[1]}/diff"
    assert podman.layer_ids([f"sha512:{'a' * 128}"])[0] != "a" * 64
    assert len(podman.layer_ids([f"sha512:{'a' * 128}"])[0]) == 64


def test_the_lower_layers_are_named_from_top_to_bottom() -> None:
    image = stored(1, "a:1", depth=3)
    base, *short = [path.rpartition("/")[2] for path, _ in image.links()]
    files = {
        path: {each.entry.path: each for each in entries}
        for path, entries in image.trees("/srv/images")
    }
    top = files[f"podmanStore/overlay/{image.layers[-1].id}"]
    assert top["lower"].content.decode() == f"l/{short[1]}:l/{short[0]}:l/{base}"
    assert top["link"].content.decode() == short[2]
    assert top["diff"].entry.target == "/srv/images/.layers/x"
    bottom = files[f"podmanStore/overlay/{image.layers[0].id}"]
    assert bottom["lower"].content.decode() == f"l/{base}"


@pytest.mark.parametrize(
    ("reference", "name", "expected"),
    [
        ("debian", "", "docker.io/library/debian:latest"),
        ("https://index.docker.io/a/b:1", "", "docker.io/a/b:1"),
        ("http://localhost:5000/b:1", "", "localhost:5000/b:1"),
        (f"quay.io/a/b@sha256:{'a' * 64}", "", f"quay.io/a/b@sha256:{'a' * 64}"),
        (f"quay.io/a/b:1@sha256:{'a' * 64}", "", "quay.io/a/b:1"),
        ("oci:/srv/x:1", "local/tool:1", "localhost/tool:1"),
    ],
)
def test_names_are_completed_as_podman_completes_them(
    reference: str, name: str, expected: str
) -> None:
    assert podman.store_name(parse_reference(reference), name) == expected


@given(st.lists(st.sampled_from("abcd")))
def test_of_equal_layers_the_topmost_is_mounted(digests: list[str]) -> None:
    numbers = distinct_from_top(digests)
    assert [digests[n] for n in numbers] == list(dict.fromkeys(reversed(digests)))[::-1]


def test_another_image_under_the_same_id_keeps_its_layers() -> None:
    image = stored(1, "a:1")
    flat = replace(image, name="b:1", layers=(podman.flat_layer("sha256:x", ".flat/x", 5),))
    entries = lists.add_image(lists.add_image(None, image), flat)
    [entry] = json.loads(entries)
    assert entry["names"] == ["a:1", "b:1"] and entry["layer"] == image.layers[-1].id


def test_an_addition_reads_none_of_the_other_entries() -> None:
    entries: bytes | None = None
    layers: bytes | None = None
    for number in range(0, 3000, 10):
        image = stored(number, f"n{number}:1")
        entries, layers = lists.add_image(entries, image), lists.add_layers(layers, image)
    assert entries is not None and layers is not None
    # Parsing any of these would fail.
    broken = [data.replace(b'"created":', b'"created"!') for data in (entries, layers)]
    new = stored(1, "new:1")
    added = lists.add_image(broken[0], new), lists.add_layers(broken[1], new)
    for before, after in zip(broken, added, strict=True):
        assert (
            after.startswith(before.removesuffix(b"\n]\n")) and new.layers[-1].id.encode() in after
        )
