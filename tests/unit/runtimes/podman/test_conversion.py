"""Stores of earlier releases, and for other mounts, are brought to the current form."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests import old_podman_store
from tests.command import Result, publisher, succeed
from tests.layer_builder import write_layout
from tests.old_podman_store import BEFORE, FLAT, LAYERED, describe, publish_images
from tests.schemas import layout_schema

STORE = "podmanStore"


def published(tmp_path: Path) -> Path:
    tree = tmp_path / "images"
    publish_images(tmp_path, tree)
    return tree


def ingest(tmp_path: Path, tree: Path) -> Result:
    """The images that are published are requested again."""
    write_layout(LAYERED, tmp_path / "layered", "1")
    wishes = tmp_path / "wishes.yaml"
    wishes.write_text(
        "version: 2\nimages:\n"
        f"  - {{image: 'oci:{tmp_path}/layered:1', outputs: [flat, layers, podman], name: layered}}"
        f"\n  - {{image: 'oci:{tmp_path}/flat:1', outputs: [flat, podman], name: flat}}\n"
    )
    return publisher("ingest", wishes, "--repository", tree, "--output", "json")


def repair(_: Path, tree: Path) -> Result:
    return publisher("verify", "--repair", "--repository", tree)


def findings(tree: Path) -> list[Any]:
    found = publisher("verify", "--repository", tree, "--output", "json").json["findings"]
    assert isinstance(found, list)
    return found


def images_of(tree: Path) -> dict[str, Any]:
    entries = json.loads((tree / STORE / "overlay-images/images.json").read_bytes())
    return {f"sha256:{entry['id']}": entry for entry in entries}


@pytest.mark.parametrize("convert", [ingest, repair])
def test_a_store_of_an_earlier_release_is_converted(tmp_path: Path, convert: Any) -> None:
    tree = published(tmp_path)
    new = describe(tree / STORE)
    old_podman_store.restore(tree)
    assert [finding["kind"] for finding in findings(tree)] == ["podman-store-damaged"]
    assert "earlier release" in publisher("doctor", "--repository", tree).out

    assert convert(tmp_path, tree).code == 0

    assert findings(tree) == []
    converted = describe(tree / STORE)
    lists = {path for path in new if path.endswith("s.json")}
    assert {path: converted[path] for path in new.keys() - lists} == {
        path: new[path] for path in new.keys() - lists
    }, "what a new store has, and the layers under their earlier IDs"
    assert images_of(tree) == {digest: dict(entry) for digest, entry in images_from(new).items()}, (
        "the image that has left its name is converted as well"
    )
    assert images_of(tree).keys() == {each.image_id for each in (BEFORE, LAYERED, FLAT)}
    for link in links_of(tree):
        assert os.readlink(link).startswith(f"{tree}/.") and link.is_dir()


def images_from(described: dict[str, tuple[str, str]]) -> dict[str, Any]:
    entries = json.loads(described["overlay-images/images.json"][1])
    return {f"sha256:{entry['id']}": entry for entry in entries}


def test_layers_under_earlier_ids_stay_until_the_next_collection(tmp_path: Path) -> None:
    tree = published(tmp_path)
    old_podman_store.restore(tree)
    earlier = {path.name for path in (tree / STORE / "overlay").iterdir()}
    assert ingest(tmp_path, tree).code == 0
    assert earlier <= {path.name for path in (tree / STORE / "overlay").iterdir()}

    succeed("remove", "local/flat:1", "--grace", "0d", "--repository", tree)
    succeed("gc", "--now", "--repository", tree)

    fresh = tmp_path / "fresh"
    (tmp_path / "again").mkdir()
    publish_images(tmp_path / "again", fresh)
    succeed("remove", "local/flat:1", "--grace", "0d", "--repository", fresh)
    succeed("gc", "--now", "--repository", fresh)
    assert layers_of(tree) == layers_of(fresh)
    assert findings(tree) == []


def links_of(tree: Path) -> list[Path]:
    directories = (tree / STORE / "overlay").iterdir()
    return [directory / "diff" for directory in directories if len(directory.name) == 64]


def layers_of(tree: Path) -> set[str]:
    entries = json.loads((tree / STORE / "overlay-layers/layers.json").read_bytes())
    directories = {
        path.name for path in (tree / STORE / "overlay").iterdir() if len(path.name) == 64
    }
    assert directories == {entry["id"] for entry in entries}
    return directories


@pytest.mark.parametrize("convert", [ingest, repair])
def test_links_lead_to_where_clients_mount_the_repository(tmp_path: Path, convert: Any) -> None:
    tree = published(tmp_path)
    record = tree / STORE / "podman-store.json"
    layout_schema("podman-store").validate(json.loads(record.read_bytes()))

    shown = succeed("init", tree, "--mount", "/mnt/images")
    assert "publisher verify --repair" in shown.err and "/mnt/images" in shown.out
    layout_schema("repository").validate(
        json.loads((tree / ".metadata/repository.json").read_bytes())
    )
    doctor = publisher("doctor", "--repository", tree)
    assert doctor.code == 1 and "publisher verify --repair" in doctor.out
    assert convert(tmp_path, tree).code == 0

    links = {os.readlink(link) for link in links_of(tree)}
    assert links and all(link.startswith("/mnt/images/.") for link in links)
    assert json.loads(record.read_bytes()) == {"version": 2, "mount": "/mnt/images"}
    assert findings(tree) == []
    assert "lead to /mnt/images" in publisher("doctor", "--repository", tree).out
    assert succeed("init", tree, "--output", "json").json["mount"] == "/mnt/images"

    succeed("init", tree, "--mount", "own")
    assert convert(tmp_path, tree).code == 0
    assert all(link.is_dir() for link in links_of(tree))


@pytest.mark.parametrize("mount", ["images", "/", "//images", "/srv/../images", "/srv/images/", ""])
def test_a_mount_is_an_absolute_path_in_normal_form(tmp_path: Path, mount: str) -> None:
    result = publisher("init", tmp_path / "images", "--mount", mount)
    assert result.code == 2 and "absolute path" in result.err


def test_a_store_that_a_newer_release_wrote_is_left_alone(tmp_path: Path) -> None:
    tree = published(tmp_path)
    record = tree / STORE / "podman-store.json"
    record.write_text('{"version": 3, "layout": "another"}')
    before = describe(tree / STORE)
    assert [finding["kind"] for finding in findings(tree)] == ["future-version"]
    failed = ingest(tmp_path, tree)
    assert failed.code == 1 and "version" in failed.out
    publisher("verify", "--repair", "--repository", tree)
    assert describe(tree / STORE) == before


def test_a_damaged_store_is_rebuilt_instead_of_converted(tmp_path: Path) -> None:
    tree = published(tmp_path)
    new = describe(tree / STORE)
    old_podman_store.restore(tree)
    [manifest] = (tree / STORE / "overlay-images").glob(f"{LAYERED.image_id[7:]}/manifest")
    manifest.unlink()
    failed = ingest(tmp_path, tree)
    assert failed.code == 1 and "publisher verify --repair" in failed.out
    succeed("verify", "--repair", "--repository", tree)
    assert findings(tree) == []
    rebuilt = describe(tree / STORE)
    assert rebuilt.keys() <= new.keys() and images_of(tree).keys() == {
        LAYERED.image_id,
        FLAT.image_id,
    }
