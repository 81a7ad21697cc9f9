"""One image that several lists or wishes request: the result does not depend on their order,
and a second run has nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from publisher.ingest.check import check
from publisher.ingest.plan import plan
from publisher.ingest.report import Report
from publisher.ingest.run import ingest
from publisher.repository import Repository
from publisher.repository.reading import load_publication
from publisher.wishlist import parse_wish_list
from publisher.wishlist.model import Request
from tests.layer_builder import file, image, image_index, layer
from tests.registry import OwnRegistry
from tests.registry_faults import status
from tests.registry_images import fast_sources

AMD = image(layer(file("amd")))
ARM = image(layer(file("arm")), architecture="arm64")


@pytest.fixture
def registry() -> Iterator[OwnRegistry]:
    with OwnRegistry() as registry:
        for built in (AMD, ARM):
            registry.add("team/x", None, built)
        registry.add_document("team/x", "1", image_index({"linux/amd64": AMD, "linux/arm64": ARM}))
        yield registry


@pytest.fixture
def wish_lists(registry: OwnRegistry, tmp_path: Path) -> dict[str, bytes]:
    """Wish lists by their names; each asks for the one image there is."""

    def text(*wishes: str) -> bytes:
        lines = [f'  - {{image: "{registry.url}/team/x", {wish}}}' for wish in wishes]
        return "\n".join(["version: 2", "images:", *lines, ""]).encode()

    return {
        "flat": text("tags: ['1'], outputs: [flat]"),
        "layers": text("tags: ['1'], outputs: [layers]"),
        "ann": text("tags: ['1'], owner: ann, note: hers"),
        "ben": text("tags: ['1'], owner: ben, note: his"),
        "arm": text("tags: ['1'], platforms: [linux/arm64]"),
        "twice alike": text("tags: ['1']", "tags: ['*']"),
        "twice": text("tags: ['1'], outputs: [layers]", "tags: ['*'], outputs: [flat]"),
    }


def requests(wish_lists: dict[str, bytes], *names: str) -> list[Request]:
    return [
        Request(wish, name)
        for name in names
        for wish in parse_wish_list(wish_lists[name], name).wishes
    ]


def run(repository: Repository, wanted: list[Request]) -> Report:
    with fast_sources() as sources:
        return ingest(wanted, repository, sources)


def statuses(report: Report) -> list[str]:
    return [str(outcome.status) for outcome in report.outcomes]


def test_an_image_is_published_with_the_outputs_of_all_lists_and_is_then_current(
    repository: Repository, registry: OwnRegistry, wish_lists: dict[str, bytes]
) -> None:
    name = f"{registry.host}/team/x:1"
    first = [statuses(run(repository, requests(wish_lists, each))) for each in ("layers", "flat")]
    assert first == [["published"], ["recorded"]]
    again = [statuses(run(repository, requests(wish_lists, each))) for each in ("layers", "flat")]
    assert again == [["unchanged"], ["unchanged"]]
    publication = load_publication(repository, name)
    assert publication is not None and publication.outputs == ("flat", "layers")
    assert repository.link_text(name) is not None


def test_lists_that_are_read_together_get_what_each_of_them_requests(
    repository: Repository, registry: OwnRegistry, wish_lists: dict[str, bytes]
) -> None:
    both = requests(wish_lists, "layers", "flat")
    run(repository, both)
    publication = load_publication(repository, f"{registry.host}/team/x:1")
    assert publication is not None and publication.outputs == ("flat", "layers")
    assert publication.wish_lists == {"layers", "flat"}
    assert statuses(run(repository, both)) == ["unchanged", "unchanged"]


def test_a_changed_owner_or_note_is_recorded_and_another_list_does_not_change_it(
    repository: Repository, registry: OwnRegistry, wish_lists: dict[str, bytes]
) -> None:
    name = f"{registry.host}/team/x:1"
    (wanted,) = requests(wish_lists, "ann")
    run(repository, [wanted])
    renamed = replace(wanted, wish=replace(wanted.wish, owner="anna"))
    assert statuses(run(repository, [renamed])) == ["recorded"]
    assert statuses(run(repository, [renamed])) == ["unchanged"]
    run(repository, requests(wish_lists, "ben"))
    publication = load_publication(repository, name)
    assert publication is not None
    assert (publication.wish_list, publication.owner) == ("ann", "anna")
    assert publication.wish_lists == {"ann", "ben"}
    for each in ([renamed], requests(wish_lists, "ben")):
        assert statuses(run(repository, each)) == ["unchanged"]


@pytest.mark.parametrize("lists", [("twice",), ("ann", "arm")])
def test_wishes_that_exclude_each_other_are_named_by_check_plan_and_ingest(
    repository: Repository, wish_lists: dict[str, bytes], lists: tuple[str, ...]
) -> None:
    documents = [(name, wish_lists[name]) for name in lists]
    wanted = requests(wish_lists, *lists)
    with fast_sources() as sources:
        checked = check(documents, sources)
        planned = plan(wanted, repository, sources, datetime.now(UTC))
        report = ingest(wanted, repository, sources)
    assert len(checked.failed) == 1
    assert sorted(bool(image.error) for image in planned) == [False, True]
    assert sorted(statuses(report)) == ["failed", "published"]
    (failure,) = report.failed
    assert "with other settings" in failure.error or "linux/a" in failure.error


def test_patterns_may_overlap_where_they_request_the_same(
    repository: Repository, wish_lists: dict[str, bytes]
) -> None:
    report = run(repository, requests(wish_lists, "twice alike"))
    assert statuses(report) == ["published"]
    with fast_sources() as sources:
        assert not check([("twice alike", wish_lists["twice alike"])], sources).failed


@pytest.mark.parametrize("tag", ["", ":1"])
def test_a_published_image_that_a_digest_pins_costs_no_request(
    repository: Repository, registry: OwnRegistry, tag: str
) -> None:
    digest = registry.tags["team/x"]["1"]
    text = f'version: 2\nimages:\n  - image: "{registry.url}/team/x{tag}@{digest}"\n'
    wanted = requests({"pinned": text.encode()}, "pinned")
    assert statuses(run(repository, wanted)) == ["published"]
    before = registry.count()
    registry.misbehave(status(500))
    assert statuses(run(repository, wanted)) == ["unchanged"]
    assert registry.count() == before
