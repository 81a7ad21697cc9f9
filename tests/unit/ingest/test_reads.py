"""How often a run reads the records of an image, counted by file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from publisher.ingest.report import Status
from publisher.ingest.run import ingest
from publisher.repository.records import IMAGE_FILES
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.layer_builder import file, image, layer, write_layout
from tests.memory_repository import MemoryRepository

BASE = layer(file("base", b"base"))


class Counting(MemoryRepository):
    """Counts reads by the name of the file; what a retired image has kept is another file."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()

    def read(self, path: str) -> bytes | None:
        if not (path.startswith(layout.RETIRED) and path.endswith(IMAGE_FILES)):
            self.reads[path.rpartition("/")[2]] += 1
        return super().read(path)


@pytest.fixture
def repository() -> Counting:
    return Counting()


def publish(repository: Counting, folder: Path, content: bytes) -> Status:
    """Let the tag name an image with one shared and one own layer, publish it, count anew."""
    write_layout(image(BASE, layer(file("own", content))), folder / "app", "1")
    repository.reads.clear()
    with Sources() as sources:
        request = Request(wish_for(f"oci:{folder}/app:1"), "/lists/a")
        (outcome,) = ingest([request], repository, sources, jobs=1).outcomes
    return outcome.status


def test_a_moved_tag_reads_each_record_once_before_and_once_under_the_lock(
    repository: Counting, tmp_path: Path
) -> None:
    """Formerly 7 reads of publication.json, and 3 of each layer's origin.json."""
    assert publish(repository, tmp_path, b"old") is Status.PUBLISHED
    assert publish(repository, tmp_path, b"new") is Status.UPDATED
    assert repository.reads["publication.json"] == 2
    assert repository.reads["manifest.json"] <= 2
    assert repository.reads["origin.json"] == 2  # of two layers
    assert repository.reads["pins.json"] == 2
    assert repository.reads["schedule.json"] <= 3


def test_an_image_that_is_current_costs_four_reads(repository: Counting, tmp_path: Path) -> None:
    publish(repository, tmp_path, b"old")
    assert publish(repository, tmp_path, b"old") is Status.UNCHANGED
    del repository.reads["remove-schedule.json"]  # once for the run
    assert repository.reads == {
        "publication.json": 1,
        "manifest.json": 1,
        "config.json": 1,
        "schedule.json": 1,
    }
