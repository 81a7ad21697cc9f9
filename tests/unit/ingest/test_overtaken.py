"""Another run publishes or removes an image during an ingest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from publisher.ingest.report import Report
from publisher.repository.reading import load_publication, load_schedule
from publisher.tree import layout
from publisher.verify.findings import Kind
from tests.layer_builder import file, image, layer
from tests.publishers import Publishers, once
from tests.registry import OwnRegistry

BASE = layer(file("base", b"base"))
OLD = image(BASE, layer(file("old", b"old")))
NEW = image(BASE, layer(file("new", b"new")))


@pytest.fixture
def registry() -> Iterator[OwnRegistry]:
    with OwnRegistry() as registry:
        yield registry


@pytest.fixture
def publishers(tmp_path: Path, registry: OwnRegistry) -> Publishers:
    return Publishers(tmp_path / "images", registry)


def statuses(report: Report) -> list[str]:
    return [str(outcome.status) for outcome in report.outcomes]


@pytest.mark.parametrize("published_before", [False, True])
def test_a_slow_run_does_not_move_a_tag_back_that_a_later_run_moved(
    publishers: Publishers, published_before: bool
) -> None:
    if published_before:
        publishers.tag(image(BASE))
        publishers.run()
    publishers.tag(OLD)

    def moved() -> None:
        publishers.tag(NEW)
        publishers.run()

    publishers.meanwhile(OLD.layers[1].digest, moved)
    assert statuses(publishers.run()) == ["unchanged"]

    repository = publishers.read()
    found = load_publication(repository, publishers.name)
    assert found is not None and found.manifest_digest == NEW.manifest.digest
    assert repository.link_text(publishers.name) == layout.link_target(
        publishers.name, NEW.image_id
    )
    assert len(load_schedule(repository).entries) == published_before
    publishers.assert_sound()


def test_a_tag_that_moves_again_and_again_is_followed_to_its_end(publishers: Publishers) -> None:
    publishers.tag(OLD)

    def moved() -> None:
        publishers.tag(NEW)
        publishers.run()
        publishers.tag(OLD)

    publishers.meanwhile(OLD.layers[1].digest, moved)
    assert statuses(publishers.run()) == ["updated"]
    found = load_publication(publishers.read(), publishers.name)
    assert found is not None and found.manifest_digest == OLD.manifest.digest
    publishers.assert_sound()


def test_outputs_that_another_list_gets_concurrently_are_not_removed(
    publishers: Publishers,
) -> None:
    publishers.tag(NEW)
    publishers.meanwhile(NEW.layers[1].digest, lambda: publishers.run("ann", ("flat",)))
    assert statuses(publishers.run("ben", ("layers",))) == ["recorded"]
    repository = publishers.read()
    found = load_publication(repository, publishers.name)
    assert found is not None and found.outputs == ("flat", "layers")
    assert found.wish_lists == {"ann", "ben"}
    assert repository.link_text(publishers.name) is not None
    publishers.assert_sound()


def test_a_flat_image_is_not_linked_to_a_layer_that_a_repair_replaces_concurrently(
    publishers: Publishers, monkeypatch: pytest.MonkeyPatch
) -> None:
    publishers.tag(image(BASE))
    publishers.run()
    publishers.tag(NEW, "other")
    damaged = publishers.root / layout.layer_tree(BASE.digest) / "base"
    before = damaged.stat()
    with damaged.open("r+b") as stream:
        stream.write(b"BASE")
    os.utime(damaged, ns=(before.st_atime_ns, before.st_mtime_ns))

    # All of the new image is linked, and it waits for the lock.
    once(monkeypatch, "publisher.ingest.publish._new_layers", publishers.repair, after=True)
    assert statuses(publishers.run(name="other")) == ["published"]
    publishers.assert_sound()


def test_a_layer_that_is_published_between_looking_for_it_and_opening_it_is_found(
    publishers: Publishers, monkeypatch: pytest.MonkeyPatch
) -> None:
    publishers.tag(NEW)
    with publishers.opened() as repository:
        staged = repository.staging.finished_layer(BASE.digest)
        publishers.run()
        monkeypatch.setattr(repository, "_find_layer", iter_of(staged, repository._find_layer))
        with repository.open_index(BASE.digest) as index:
            assert index.read(4)


def iter_of(first: Path, then: Callable[[str], Path | None]) -> Callable[[str], Path | None]:
    """A function that gives `first` once, and from then on what `then` gives."""
    answers = iter([first])
    return lambda digest: next(answers, None) or then(digest)


def test_what_a_collection_removes_from_the_podman_store_concurrently_is_added_again(
    publishers: Publishers, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = image(BASE)
    publishers.tag(NEW, "keeps-the-layer")
    publishers.run(name="keeps-the-layer")
    publishers.tag(wanted, "dying")
    publishers.run(outputs=("layers", "podman"), name="dying")
    publishers.tag(wanted)

    once(
        monkeypatch,
        "publisher.runtimes.podman.store.prepare",
        lambda: publishers.collect(f"{publishers.registry.host}/dying:1"),
        after=True,
    )
    assert statuses(publishers.run(outputs=("layers", "podman"))) == ["published"]
    # The layer was first published without the Podman store, and therefore without tar-split data.
    assert [finding.kind for finding in publishers.findings()] == [Kind.TAR_SPLIT_MISSING]
