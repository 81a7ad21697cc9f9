"""A repair with a concurrent run: that run's changes stay, and removed content stays removed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from publisher.repository.reading import load_publication
from publisher.tree import layout
from publisher.verify.derive import derive
from publisher.verify.findings import ORPHANS, Kind
from tests.layer_builder import file, image, layer
from tests.publishers import Publishers, once
from tests.registry import OwnRegistry

BASE = layer(file("base", b"base"))
OLD = image(BASE, layer(file("old", b"old")))
NEW = image(BASE, layer(file("new", b"new")))
LAYER = layout.layer_directory(BASE.digest)


@pytest.fixture
def registry() -> Iterator[OwnRegistry]:
    with OwnRegistry() as registry:
        yield registry


@pytest.fixture
def publishers(tmp_path: Path, registry: OwnRegistry) -> Publishers:
    publishers = Publishers(tmp_path / "images", registry)
    publishers.tag(OLD)
    publishers.run()
    return publishers


def damage(publishers: Publishers, path: str, content: bytes) -> None:
    """Change the file in place, so that all its hard links change."""
    before = (publishers.root / path).stat()
    with (publishers.root / path).open("r+b") as stream:
        stream.write(content)
    os.utime(publishers.root / path, ns=(before.st_atime_ns, before.st_mtime_ns))


def move_tag(publishers: Publishers) -> None:
    publishers.tag(NEW)
    publishers.run()


@pytest.mark.parametrize("lost", [layout.CONFIG_FILE, layout.MANIFEST_FILE])
def test_metadata_that_is_fetched_again_does_not_replace_that_of_a_newer_image(
    publishers: Publishers, lost: str
) -> None:
    (publishers.root / layout.image_metadata(publishers.name) / lost).unlink()
    publishers.meanwhile(OLD.image_id, lambda: move_tag(publishers))
    repaired, _ = publishers.repair()
    assert not repaired.failures, "the damaged metadata no longer exists"
    found = load_publication(publishers.read(), publishers.name)
    assert found is not None and found.manifest_digest == NEW.manifest.digest
    manifest = publishers.read().read(layout.manifest_file(publishers.name))
    assert manifest == NEW.manifest.data
    assert publishers.read().read(layout.config_file(publishers.name)) == NEW.config
    # Without its manifest the old image could not be scheduled: what only it used is an orphan.
    left = {finding.kind for finding in publishers.findings()}
    assert left <= ({*ORPHANS, Kind.USERS_WRONG} if lost == layout.MANIFEST_FILE else set())


def test_metadata_of_a_concurrently_collected_image_is_not_published_again(
    publishers: Publishers,
) -> None:
    (publishers.root / layout.config_file(publishers.name)).unlink()
    publishers.meanwhile(OLD.image_id, publishers.collect)
    publishers.repair()
    assert not list(publishers.read().names())
    publishers.assert_sound()


def test_a_concurrently_collected_layer_is_not_published_again(publishers: Publishers) -> None:
    damage(publishers, f"{LAYER}/layerfs/base", b"BASE")
    publishers.meanwhile(BASE.digest, publishers.collect)
    publishers.repair()
    assert not publishers.read().exists(LAYER)
    publishers.assert_sound()


def test_a_layer_is_repaired_although_a_concurrent_ingest_uses_the_damaged_one(
    publishers: Publishers, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(publishers, f"{LAYER}/layerfs/base", b"BASE")
    publishers.tag(NEW, "zoo")
    once(monkeypatch, "publisher.verify.refetch.fixups", lambda: publishers.run(name="zoo"))
    repaired, report = publishers.repair()
    assert (repaired.failures, report.findings) == ((), ())
    assert {f.kind for f in repaired.findings} == {Kind.LAYER_DAMAGED}
    publishers.assert_sound()


def test_a_concurrently_collected_flat_image_is_not_published_again(
    publishers: Publishers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although its name is published, with a newer image."""
    flat = layout.flat_image(OLD.image_id)
    (publishers.root / flat / "extra").write_bytes(b"extra")

    def replaced() -> None:
        move_tag(publishers)
        publishers.gc()

    once(monkeypatch, "publisher.verify.relink._link_flat_image", replaced, after=True)
    publishers.repair()
    assert not publishers.read().exists(flat)
    publishers.assert_sound()


def test_an_index_that_is_fetched_with_its_layer_is_not_replaced_by_a_derived_one(
    publishers: Publishers, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = publishers.root / layout.layer_index(BASE.digest)
    data = index.read_bytes()
    index.unlink()
    once(
        monkeypatch,
        "publisher.verify.derive.index_from_tree",
        lambda: index.write_bytes(data),
        after=True,
    )
    with publishers.opened() as repository:
        derive(repository, publishers.findings(), datetime.now(UTC))
    assert index.read_bytes() == data
    publishers.assert_sound()
