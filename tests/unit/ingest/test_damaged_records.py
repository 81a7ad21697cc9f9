"""A damaged record is replaced by the next ingest of its image, and stops no other image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from publisher.ingest.report import Report
from publisher.repository.reading import load_publication, load_schedule
from publisher.tree import layout
from tests.layer_builder import file, image, layer
from tests.publishers import Publishers
from tests.registry import OwnRegistry

BASE = layer(file("base", b"base"))
OLD = image(BASE, layer(file("old", b"old")))
NEW = image(BASE, layer(file("new", b"new")))
OTHER = image(BASE, layer(file("other", b"other")))
IMAGE_FILES = ("manifest.json", "config.json", "publication.json")
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "an array": lambda _: b"[]",
}


@pytest.fixture
def publishers(tmp_path: Path) -> Iterator[Publishers]:
    with OwnRegistry() as registry:
        made = Publishers(tmp_path / "images", registry)
        made.tag(OLD)
        made.run("/lists/a")
        yield made


def damage(publishers: Publishers, path: str, how: str) -> None:
    record = publishers.root / path
    data = record.read_bytes()
    record.unlink()
    record.write_bytes(DAMAGES[how](data))


def statuses(report: Report) -> list[str]:
    return [str(outcome.status) for outcome in report.outcomes]


@pytest.mark.parametrize("file_name", IMAGE_FILES)
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_record_of_an_image_is_replaced_by_the_next_ingest(
    publishers: Publishers, file_name: str, how: str
) -> None:
    damage(publishers, f"{layout.image_metadata(publishers.name)}/{file_name}", how)
    report = publishers.run("/lists/a")
    assert not report.failed
    assert statuses(report) in (["recorded"], ["published"])
    assert statuses(publishers.run("/lists/a")) == ["unchanged"]
    publishers.assert_sound()


@pytest.mark.parametrize("how", DAMAGES)
def test_an_image_with_a_damaged_publication_is_scheduled_when_its_tag_moves(
    publishers: Publishers, how: str
) -> None:
    damage(publishers, layout.publication_file(publishers.name), how)
    publishers.tag(NEW)
    assert statuses(publishers.run("/lists/a")) == ["updated"]
    (entry,) = load_schedule(publishers.read()).entries
    assert entry.manifest_digest == OLD.manifest.digest


def test_a_tag_can_move_on_from_a_damaged_manifest(publishers: Publishers) -> None:
    """The old image cannot be scheduled: verify finds its content, and gc can collect that."""
    damage(publishers, layout.manifest_file(publishers.name), "cut off")
    publishers.tag(NEW)
    assert not publishers.run("/lists/a").failed
    found = load_publication(publishers.read(), publishers.name)
    assert found is not None and found.manifest_digest == NEW.manifest.digest
    assert not load_schedule(publishers.read()).entries
    assert statuses(publishers.run("/lists/a")) == ["unchanged"]


def test_a_damaged_schedule_entry_fails_its_image_alone_and_names_the_command(
    publishers: Publishers,
) -> None:
    publishers.tag(NEW)
    publishers.run("/lists/a")
    path = layout.retired_schedule(OLD.manifest.digest)
    damage(publishers, path, "cut off")
    publishers.tag(OLD)
    (failed,) = publishers.run("/lists/a").failed
    assert path in failed.error and "publisher verify --repair" in failed.error
    publishers.tag(OTHER, "other")
    assert statuses(publishers.run("/lists/a", name="other")) == ["published"]
    publishers.repair()
    assert statuses(publishers.run("/lists/a")) == ["updated"]
    publishers.assert_sound()


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_pins_fail_only_images_whose_tags_move(publishers: Publishers, how: str) -> None:
    (publishers.root / layout.PINS).write_bytes(b'{"version": 1, "pins": []}')
    damage(publishers, layout.PINS, how)
    assert statuses(publishers.run("/lists/a")) == ["unchanged"]
    publishers.tag(OTHER, "other")
    assert statuses(publishers.run("/lists/a", name="other")) == ["published"]
    publishers.tag(NEW)
    (failed,) = publishers.run("/lists/a").failed
    assert layout.PINS in failed.error and "publisher verify --repair" in failed.error
    publishers.repair()
    assert statuses(publishers.run("/lists/a")) == ["updated"]
