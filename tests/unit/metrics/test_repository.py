"""The metrics that are read from a repository, without reading its images."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from publisher.ingest.run import ingest
from publisher.metrics.families import Update
from publisher.metrics.repository import repository_updates
from publisher.repository.directory.repository import DirectoryRepository
from publisher.sources.open import Sources
from publisher.tree.layout import RepositoryURL
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.command import succeed
from tests.cvmfs import make_machine
from tests.layer_builder import file, image, layer, write_layout
from tests.opened_files import opened_files


def numbers(updates: tuple[Update, ...]) -> dict[str, float]:
    assert all(update.scope == ("label",) for update in updates)
    return {each.family.name.removeprefix("publisher_"): each.values[()] for each in updates}


def test_the_schedule_and_the_space_are_read_without_the_images(tmp_path: Path) -> None:
    reference = f"oci:{write_layout(image(layer(file('a'))), tmp_path / 'layout', '1')}:1"
    url = RepositoryURL.parse(f"dir:{tmp_path}/images")
    requests = [Request(wish_for(reference, name=name)) for name in ("a", "b", "c")]
    with closing(DirectoryRepository(url, writable=True, may_be_new=True)) as new:
        ingest(requests, new, Sources())
    succeed("remove", "local/a:1", "local/b:1", "--repository", url.location)
    repository = DirectoryRepository(url)
    now = datetime.now(UTC)
    with opened_files(tmp_path / "images") as opened:
        read = numbers(tuple(repository_updates(repository, "label", now)))
    assert (read["scheduled_images"], read["due_images"]) == (2, 0)
    assert 0 < read["repository_free_bytes"] < read["repository_capacity_bytes"]
    assert not [path for path in opened if path.startswith((".layers", ".flat"))]
    assert len(opened) < 10
    later = numbers(tuple(repository_updates(repository, "label", now + timedelta(days=400))))
    assert later["due_images"] == 2

    schedule = tmp_path / "images/.metadata/remove-schedule.json"
    schedule.write_bytes(b"damaged")
    damaged = numbers(tuple(repository_updates(repository, "label", now)))
    assert damaged.keys() == read.keys() - {"scheduled_images", "due_images"}


def test_the_revision_of_a_cvmfs_repository_is_read_from_its_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make_machine(tmp_path / "machine")
    for key, value in machine.environment.items():
        monkeypatch.setenv(key, value)
    repository = machine.open(machine.make("images.example.org"), writable=False)
    now = datetime.now(UTC)
    read = numbers(tuple(repository_updates(repository, "label", now)))
    assert read["repository_revision"] == machine.revision("images.example.org")
    (tmp_path / "machine/srv/cvmfs/images.example.org/.cvmfspublished").write_text("damaged")
    damaged = numbers(tuple(repository_updates(repository, "label", now)))
    assert damaged.keys() == read.keys() - {"repository_revision"}
