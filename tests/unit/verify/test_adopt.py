"""A tree that DUCC filled is taken over in place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publisher.oci.chain import chain_ids
from publisher.oci.digest import digest_hex, digest_of
from publisher.oci.document import Document
from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from publisher.verify.findings import ORPHANS
from publisher.verify.survey import survey
from tests.command import publisher, succeed
from tests.cvmfs import Machine, make_machine
from tests.layer_builder import Image, directory, file, image, layer
from tests.registry import OwnRegistry
from tests.schemas import output_schema, strict
from tests.trees import assert_same_tree, describe_tree

BASE = layer(directory("etc"), file("etc/os", b"base"))
FIRST = image(BASE, layer(file("tool", b"1")))
SECOND = image(BASE, layer(file("tool", b"2")))
NAME = "unpacked.test.org"


@pytest.fixture
def registry() -> Iterator[OwnRegistry]:
    with OwnRegistry() as running:
        yield running


def as_ducc_writes(built: Image) -> bytes:
    """The manifest, serialised anew with capitalised keys."""
    value = json.loads(built.manifest.data)

    def descriptor(given: dict[str, Any]) -> dict[str, Any]:
        return {"MediaType": given["mediaType"], "Size": given["size"], "Digest": given["digest"]}

    return json.dumps(
        {
            "SchemaVersion": 2,
            "MediaType": value["mediaType"],
            "Config": descriptor(value["config"]),
            "Layers": [descriptor(each) for each in value["layers"]],
        }
    ).encode()


def write_ducc_tree(root: Path, host: str, **images: Image) -> None:
    """`images` by tag, as DUCC publishes them."""
    for tag, built in images.items():
        name = f"{host}/team/tool:{tag}"
        image_id = built.image_id
        flat = root / layout.flat_image(image_id)
        for part in built.layers:
            digest = part.descriptor.digest
            tree = root / layout.layer_tree(digest)
            tree.mkdir(parents=True, exist_ok=True)
            (tree / "content").write_text(digest)
            record = root / layout.layer_origin(digest)
            record.parent.mkdir(exist_ok=True)
            record.write_text(json.dumps({"origin": [image_id], "extra": 1}))
        flat.mkdir(parents=True, exist_ok=True)
        (flat / "content").write_text(image_id)
        metadata = root / layout.image_metadata(name)
        metadata.mkdir(parents=True)
        (metadata / "manifest.json").write_bytes(as_ducc_writes(built))
        link = root / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(layout.link_target(name, image_id))


def test_an_image_that_its_registry_still_has_is_adopted_without_a_download(
    tmp_path: Path, registry: OwnRegistry
) -> None:
    root = tmp_path / "images"
    write_ducc_tree(root, registry.host, a=FIRST, b=SECOND)
    (root / ".metadata/remove-schedule.json").write_text("[]")
    registry.add("team/tool", "a", FIRST)
    registry.add("team/tool", "b", FIRST)  # its tag has moved since
    config = tmp_path / "config.yaml"
    config.write_text(f"registries:\n  '{registry.host}':\n    insecure: true\n")
    arguments = ("adopt", "--repository", root, "--config", config, "--output", "json")
    before = describe_tree(root)

    dry = succeed(*arguments, "--dry-run")
    assert describe_tree(root) == before
    done = succeed(*arguments)

    strict(output_schema("adopt/1")).validate(done.json)
    assert done.json["images"] == dry.json["images"]
    assert done.json["records"] == dry.json["records"] > 0
    statuses = {each["name"].rpartition(":")[2]: each["status"] for each in done.json["images"]}
    assert statuses == {"a": "adopted", "b": "moved"}
    name = f"{registry.host}/team/tool:a"
    assert (root / layout.manifest_file(name)).read_bytes() == FIRST.manifest.data
    assert (root / layout.config_file(name)).read_bytes() == FIRST.config
    assert not any(
        "/blobs/" in r.path and digest_hex(part.descriptor.digest) in r.path
        for r in registry.requests
        for part in (*FIRST.layers, *SECOND.layers)
    )
    origin = json.loads((root / layout.layer_origin(BASE.descriptor.digest)).read_bytes())
    assert set(origin["origin"]) == {FIRST.image_id, SECOND.image_id}
    assert origin["extra"] == 1
    assert (root / layout.image_users(FIRST.image_id)).exists()
    chains = chain_ids([part.diff_id for part in FIRST.layers])
    for part, chain in zip(FIRST.layers, chains, strict=True):
        link = os.readlink(root / layout.chain_link(chain))
        assert link == layout.chain_target(part.descriptor.digest)
    assert "chain-links-missing" not in verified(root)

    # The image is current for a wish that requests it.
    again = succeed("ingest-image", f"http://{name}", "--repository", root, "--output", "json")
    assert again.json["outcomes"][0]["layersFetched"] == 0
    assert succeed(*arguments).json["records"] == 0


def verified(root: Path) -> set[str]:
    found = publisher("verify", "--repository", root, "--output", "json").json["findings"]
    return {finding["kind"] for finding in found}


def test_an_image_whose_registry_is_unavailable_is_kept_and_named(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_ducc_tree(root, "127.0.0.1:9", a=FIRST)
    result = publisher("adopt", "--repository", root)
    assert result.code == 1
    assert "kept" in result.err and "127.0.0.1:9/team/tool:a" in result.err
    assert not (root / layout.publication_file("127.0.0.1:9/team/tool:a")).exists()
    assert (root / layout.image_users(FIRST.image_id)).exists()


@pytest.mark.parametrize(
    "config",
    [[1], "text", 5, None, {"os": 5, "architecture": []}, {"os": "..", "architecture": ""}],
)
def test_an_image_with_a_malformed_config_is_kept_and_named(
    tmp_path: Path, registry: OwnRegistry, config: Any
) -> None:
    data = json.dumps(config).encode()
    manifest = json.loads(FIRST.manifest.data)
    manifest["config"] |= {"digest": digest_of(data), "size": len(data)}
    manifest_data = json.dumps(manifest).encode()
    document = Document(manifest_data, FIRST.manifest.media_type, digest_of(manifest_data))
    malformed = Image(document, data, FIRST.layers)
    root = tmp_path / "images"
    write_ducc_tree(root, registry.host, a=malformed)
    registry.add("team/tool", "a", malformed)
    settings = tmp_path / "config.yaml"
    settings.write_text(f"registries:\n  '{registry.host}':\n    insecure: true\n")
    result = publisher("adopt", "--repository", root, "--config", settings)
    assert result.code == 1
    assert "Traceback" not in result.err
    assert "kept" in result.err and f"{registry.host}/team/tool:a" in result.err
    assert (root / layout.image_users(malformed.image_id)).exists()


def test_images_that_ducc_has_scheduled_are_not_lost(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_ducc_tree(root, "127.0.0.1:9", a=FIRST)
    (root / ".metadata/remove-schedule.json").write_text(json.dumps([{"Layers": []}]))
    before = describe_tree(root)
    result = publisher("adopt", "--repository", root)
    assert result.code == 1 and "garbage-collection" in result.err
    after = {path: node for path, node in describe_tree(root).items() if ".publisher" not in path}
    assert_same_tree(after, before)


def test_content_that_ducc_has_scheduled_is_in_use_without_a_name(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_ducc_tree(root, "127.0.0.1:9", a=FIRST, b=SECOND)
    for path in (layout.manifest_file("127.0.0.1:9/team/tool:b"), "127.0.0.1:9/team/tool:b"):
        (root / path).unlink()
    schedule = json.dumps([json.loads(as_ducc_writes(SECOND))])
    (root / layout.REMOVE_SCHEDULE).write_text(schedule)
    inventory, expected = survey(DirectoryRepository(RepositoryURL.parse(f"dir:{root}")))
    assert [image.name for image in inventory.images] == ["127.0.0.1:9/team/tool:a"]
    assert [manifest.image_id for manifest in inventory.unnamed] == [SECOND.image_id]
    assert expected.images[SECOND.image_id] == set()
    assert expected.image_names[SECOND.image_id] == ""
    assert expected.layers[BASE.digest] == {FIRST.image_id, SECOND.image_id}
    assert not [finding for finding in inventory.findings if finding.kind in ORPHANS]


def test_a_cvmfs_repository_is_adopted_in_one_revision(
    tmp_path: Path, registry: OwnRegistry
) -> None:
    machine: Machine = make_machine(tmp_path / "machine")
    machine.make(NAME)
    write_ducc_tree(machine.mount(NAME), registry.host, a=FIRST)
    registry.add("team/tool", "a", FIRST)
    config = tmp_path / "config.yaml"
    config.write_text(f"registries:\n  '{registry.host}':\n    insecure: true\n")
    more = ("--repository", f"cvmfs:{NAME}", "--config", config)
    succeed("adopt", *more, env=machine.environment)
    assert machine.revision(NAME) == 2
    assert "tool:a" in succeed("list", "--repository", f"cvmfs:{NAME}", env=machine.environment).out
    assert os.path.lexists(machine.mount(NAME) / registry.host / "team/tool:a")
