"""`gc --orphans` removes what no image names, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from publisher.layers.policy import Policy
from publisher.layers.unpack import unpack
from publisher.oci.chain import chain_ids
from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from tests.command import Result, run_here
from tests.layer_builder import file, image, layer, write_layout
from tests.schemas import output_schema
from tests.trees import assert_same_tree, describe_tree

BASE, OWN, OTHER = (layer(file(name, b"x" * 100)) for name in ("base", "own", "other"))
FIRST, SECOND = image(BASE, OWN), image(BASE, OTHER)
NAME, KEPT = "local/first:1", "local/second:1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, built in (("first", FIRST), ("second", SECOND)):
        write_layout(built, tmp_path / name, "1")
        assert ask(tmp_path, "ingest-image", f"oci:{tmp_path}/{name}:1").code == 0
    return tmp_path


def ask(root: Path, *arguments: str) -> Result:
    return run_here(*arguments, "--repository", root / "images")


def lose_metadata(root: Path) -> None:
    shutil.rmtree(root / "images" / layout.image_metadata(NAME))


def test_the_command_that_verify_prints_collects_orphans(root: Path) -> None:
    lose_metadata(root)
    found = ask(root, "verify")
    assert found.code == 1
    assert "try: publisher gc --orphans" in found.out
    before = describe_tree(root / "images")

    dry = ask(root, "gc", "--orphans", "--dry-run", "--output", "json")
    output_schema("gc/1").validate(dry.json)
    assert_same_tree(describe_tree(root / "images"), before)
    done = ask(root, "gc", "--orphans", "--output", "json")

    expected = [
        NAME,
        layout.chain_link(chain_ids([BASE.diff_id, OWN.diff_id])[1]),
        layout.flat_image(FIRST.image_id),
        layout.layer_directory(OWN.digest),
        layout.image_users(FIRST.image_id),
    ]
    assert dry.json["orphans"] == done.json["orphans"] == expected
    assert (done.json["bytes"], done.code) == (100, 0)
    for path in expected:
        assert not (root / "images" / path).exists()
    assert ask(root, "verify", "--repair").code == 0, "the shared layer's record is counted anew"
    assert ask(root, "verify", "--deep").code == 0
    assert (root / "images" / KEPT / "other").exists()
    assert "collected" in ask(root, "log").out


def test_an_unreadable_manifest_may_name_anything_so_that_nothing_is_an_orphan(root: Path) -> None:
    lose_metadata(root)
    (root / "images" / layout.manifest_file(KEPT)).write_bytes(b"{")
    before = describe_tree(root / "images")
    result = ask(root, "gc", "--orphans")
    assert result.code == 1
    assert layout.manifest_file(KEPT) in result.err and "try: publisher verify" in result.err
    assert before.keys() <= describe_tree(root / "images").keys()


def test_staged_and_scheduled_layers_are_not_orphans(root: Path) -> None:
    assert ask(root, "remove", NAME).code == 0
    staged = layer(file("staged"))
    place = RepositoryURL.parse(f"dir:{root}/images")
    repository = DirectoryRepository(place, writable=True, may_be_new=True)
    with repository.stage_layer(staged.digest) as stage:
        with stage.open_files() as files:
            unpack(
                *(staged.chunks(), staged.descriptor, staged.diff_id),
                *(files.sink, files.index, Policy()),
            )
        stage.finish()
    assert ask(root, "gc", "--orphans").out.startswith("0 orphans collected")
    assert repository.has_layer(staged.digest)
    repository.close()
    assert ask(root, "verify", "--deep").code == 0


def test_an_image_whose_source_is_missing_too_is_discarded_by_the_printed_commands(
    root: Path,
) -> None:
    shutil.rmtree(root / "first")
    (root / "images" / layout.manifest_file(NAME)).write_bytes(b"{")
    refused = ask(root, "verify", "--refetch")
    assert refused.code == 1
    assert f"publisher remove --unreadable {NAME}" in refused.err
    discarded = ask(root, "remove", "--unreadable", NAME, "--output", "json")
    output_schema("remove/1").validate(discarded.json)
    assert discarded.json["discarded"] == [NAME]
    assert ask(root, "verify", "--repair").code == 1
    assert ask(root, "gc", "--orphans").code == 0
    assert ask(root, "verify", "--deep").code == 0
    assert [line.split()[0] for line in ask(root, "list").out.splitlines()] == [KEPT]


def test_an_image_whose_metadata_is_readable_is_not_discarded(root: Path) -> None:
    before = describe_tree(root / "images" / layout.METADATA / "local")
    for name, why in ((NAME, "its metadata is readable"), ("local/none:1", "has no metadata")):
        result = ask(root, "remove", "--unreadable", name)
        assert result.code == 1
        assert why in result.err
    assert_same_tree(describe_tree(root / "images" / layout.METADATA / "local"), before)
