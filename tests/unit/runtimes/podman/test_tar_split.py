"""The store's links to the tar-split data of layers: made, checked, and removed with them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from publisher.tree import layout
from tests.command import publisher, succeed
from tests.layer_builder import Image, Layer, file, image, layer, write_layout
from tests.old_podman_store import describe
from tests.tar_split import assemble

SHARED = layer(file("shared", b"shared"))
ONE = image(SHARED, layer(file("one", b"1")))
TWO = image(SHARED, layer(file("two", b"2")))
REPLACED = layer(file("a", b"1"), file("a", b"2"))


def publish(
    folder: Path, tree: Path, built: Image, name: str, outputs: str = "layers, podman"
) -> None:
    source = f"oci:{write_layout(built, folder / name, '1')}:1"
    wishes = folder / "wishes.yaml"
    wishes.write_text(
        f"version: 2\nimages:\n  - {{image: '{source}', name: {name}, outputs: [{outputs}]}}\n"
    )
    succeed("ingest", wishes, "--repository", tree)


def links(tree: Path) -> list[Path]:
    return sorted((tree / "podmanStore/overlay-layers").glob("*.tar-split.gz"))


def data_of(tree: Path, each: Layer) -> Path:
    return tree / layout.layer_tar_split(each.digest)


def kinds(tree: Path) -> set[str]:
    found = publisher("verify", "--repository", tree, "--output", "json").json["findings"]
    return {finding["kind"] for finding in found}


def test_layers_have_their_data_once_and_the_store_has_a_link_for_each_id(tmp_path: Path) -> None:
    tree = tmp_path / "images"
    publish(tmp_path, tree, ONE, "one")
    publish(tmp_path, tree, TWO, "two")
    assert {link.resolve() for link in links(tree)} == {
        data_of(tree, each) for each in (*ONE.layers, *TWO.layers)
    }
    assert all(os.readlink(link).startswith("../../.layers/") for link in links(tree))
    for each in (*ONE.layers, *TWO.layers):
        data = data_of(tree, each).read_bytes()
        assert assemble(data, tree / layout.layer_tree(each.digest)) == each.tar
        assert data_of(tree, each).stat().st_mode & 0o777 == 0o644
    assert kinds(tree) == set()

    succeed("remove", "local/two:1", "--grace", "0d", "--repository", tree)
    succeed("gc", "--now", "--repository", tree)
    assert {link.resolve() for link in links(tree)} == {data_of(tree, x) for x in ONE.layers}
    assert not data_of(tree, TWO.layers[1]).exists()


def test_layers_that_were_published_without_data_are_reported_and_get_it_by_the_hint(
    tmp_path: Path,
) -> None:
    tree = tmp_path / "images"
    publish(tmp_path, tree, ONE, "one", outputs="flat, layers")
    assert not list(tree.rglob("*tar-split*"))
    publish(tmp_path, tree, TWO, "two")
    publish(tmp_path, tree, ONE, "one")
    assert [link.resolve() for link in links(tree)] == [data_of(tree, TWO.layers[1])]
    found = succeed("verify", "--repository", tree, "--output", "json").json["findings"]
    assert [finding["kind"] for finding in found] == ["tar-split-missing"]
    assert found[0]["severity"] == "note"
    assert "2 layers" in found[0]["what"] and "local/one:1, local/two:1" in found[0]["what"]
    assert found[0]["how"].startswith("remove these images, collect them")

    succeed("remove", "local/one:1", "local/two:1", "--grace", "0d", "--repository", tree)
    succeed("gc", "--now", "--repository", tree)
    publish(tmp_path, tree, ONE, "one")
    assert {link.resolve() for link in links(tree)} == {data_of(tree, x) for x in ONE.layers}
    assert kinds(tree) == set()


def test_a_flat_image_in_the_store_needs_no_data(tmp_path: Path) -> None:
    tree = tmp_path / "images"
    publish(tmp_path, tree, ONE, "one", outputs="flat, podman")
    assert kinds(tree) == set()


def test_an_archive_that_cannot_be_assembled_has_no_data(tmp_path: Path) -> None:
    tree = tmp_path / "images"
    publish(tmp_path, tree, image(SHARED, REPLACED), "replaced")
    assert [link.resolve() for link in links(tree)] == [data_of(tree, SHARED)]
    assert kinds(tree) == {"tar-split-missing"}


@pytest.mark.parametrize("damage", ["link", "data"])
def test_missing_links_and_dangling_links_are_found_and_repaired(
    tmp_path: Path, damage: str
) -> None:
    tree = tmp_path / "images"
    publish(tmp_path, tree, ONE, "one")
    before = describe(tree / "podmanStore")
    (links(tree)[0] if damage == "link" else data_of(tree, SHARED)).unlink()
    assert kinds(tree) == {"podman-store-damaged"}
    succeed("verify", "--repair", "--repository", tree)
    assert kinds(tree) == ({"tar-split-missing"} if damage == "data" else set())
    if damage == "link":
        assert describe(tree / "podmanStore") == before


def test_a_layer_that_is_fetched_again_gets_its_data_again(tmp_path: Path) -> None:
    tree = tmp_path / "images"
    publish(tmp_path, tree, ONE, "one")
    before = data_of(tree, SHARED).read_bytes()
    shutil.rmtree(tree / layout.layer_tree(SHARED.digest))
    succeed("verify", "--refetch", "--repository", tree)
    assert data_of(tree, SHARED).read_bytes() == before
    assert kinds(tree) == set()
