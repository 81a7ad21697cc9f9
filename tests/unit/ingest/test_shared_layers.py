"""Two images with one layer in one run share it if it is sound, and no failures; the order."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from publisher.entry import Fixup
from publisher.ingest.report import Report
from publisher.repository import Repository
from publisher.repository.directory.linker import apply_fixups
from tests.layer_builder import directory, file, image, layer
from tests.registry import Change, OwnRegistry, wait_for
from tests.registry_faults import corrupt, held, slow, status
from tests.unit.ingest.conftest import IngestAll

BASE = layer(file("base", b"base" * 1000))
UPPER = layer(file("upper", b"upper" * 1000))


@pytest.fixture
def registries() -> Iterator[tuple[OwnRegistry, OwnRegistry]]:
    """Two registries; the second answers late, so that the first is asked for shared layers."""
    with OwnRegistry() as one, OwnRegistry() as two:
        two.misbehave(slow(delay=0.2), method="GET", path="/manifests/")
        yield one, two


def slow_down(registry: OwnRegistry) -> None:
    """Keep the layer under way until the other image wants it too."""
    registry.misbehave(slow(delay=0.6), path=BASE.digest)


def statuses(report: Report) -> list[str]:
    return [str(outcome.status) for outcome in report.outcomes]


@pytest.mark.parametrize("fault", [corrupt(), status(404), status(403)])
def test_a_layer_that_one_registry_cannot_serve_is_fetched_from_the_other(
    registries: tuple[OwnRegistry, OwnRegistry], ingest_all: IngestAll, fault: Change
) -> None:
    one, two = registries
    one.add("team/x", "1", image(BASE))
    two.add("team/y", "1", image(BASE, UPPER))
    one.misbehave(fault, path=BASE.digest)
    slow_down(one)

    report = ingest_all(f"{one.url}/team/x:1", f"{two.url}/team/y:1")

    assert one.count("GET", BASE.digest) >= 1, "both had to wait for the same layer"
    assert statuses(report) == ["failed", "published"], report.outcomes


def test_a_config_with_a_wrong_diff_id_affects_no_other_image(
    registries: tuple[OwnRegistry, OwnRegistry], ingest_all: IngestAll
) -> None:
    one, two = registries
    one.add("team/liar", "1", image(replace(BASE, diff_id=UPPER.diff_id)))
    slow_down(one)
    two.add("team/honest", "1", image(BASE))

    report = ingest_all(f"{one.url}/team/liar:1", f"{two.url}/team/honest:1")

    assert one.count("GET", BASE.digest) == 1
    assert statuses(report) == ["failed", "published"], report.outcomes


def test_a_layer_that_both_registries_have_is_fetched_and_counted_once(
    registries: tuple[OwnRegistry, OwnRegistry],
    ingest_all: IngestAll,
    repository: Repository,
) -> None:
    one, two = registries
    one.add("team/x", "1", image(BASE))
    two.add("team/y", "1", image(BASE, UPPER))
    slow_down(one)

    report = ingest_all(f"{one.url}/team/x:1", f"{two.url}/team/y:1")

    assert statuses(report) == ["published", "published"]
    assert one.count("GET", BASE.digest) + two.count("GET", BASE.digest) == 1
    assert repository.has_layer(UPPER.digest)
    assert sum(outcome.layers_fetched for outcome in report.outcomes) == 2
    sizes = {BASE.digest: len(BASE.blob), UPPER.digest: len(UPPER.blob)}
    assert sum(outcome.bytes_fetched for outcome in report.outcomes) == sum(sizes.values())


def test_images_that_are_published_at_once_fetch_what_they_share_once(
    ingest_all: IngestAll,
) -> None:
    """Also a layer that is on its way into the tree, completed by what is below it."""
    with OwnRegistry() as registry:
        for attempt in range(6):
            lower = layer(directory("etc", mode=0o700), file("etc/a", b"%d" % attempt))
            upper = layer(file("etc/b", b"%d" % attempt))
            names = [f"team/x{attempt}-{number}" for number in range(4)]
            for name in names:
                registry.add(name, "1", image(lower, upper, config={"Env": [f"NAME={name}"]}))
            report = ingest_all(*(f"{registry.url}/{name}:1" for name in names))
            assert statuses(report) == ["published"] * 4
            assert registry.count("GET", lower.digest) == 1
            assert registry.count("GET", upper.digest) == 1


def test_a_layer_that_a_transaction_has_taken_is_waited_for(
    registries: tuple[OwnRegistry, OwnRegistry],
    ingest_all: IngestAll,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second image begins while the upper layer is completed, which takes a second here."""

    def slowly(tree: Path, needed: Sequence[Fixup], lower: Mapping[int, Path]) -> None:
        time.sleep(1 if needed else 0)
        apply_fixups(tree, needed, lower)

    monkeypatch.setattr("publisher.repository.directory.transaction.apply_fixups", slowly)
    one, two = registries
    lower, upper = layer(directory("etc", mode=0o700)), layer(file("etc/b", b"1"))
    for registry, name in ((one, "x"), (two, "y")):
        registry.add(f"team/{name}", "1", image(lower, upper, config={"Env": [f"NAME={name}"]}))
    two.misbehave(slow(delay=0.6), method="GET", path="/manifests/")
    report = ingest_all(f"{one.url}/team/x:1", f"{two.url}/team/y:1")
    assert statuses(report) == ["published", "published"]
    assert one.count("GET", upper.digest) + two.count("GET", upper.digest) == 1


def test_of_many_images_no_layer_is_fetched_twice_and_none_waits_for_a_base_it_does_not_have(
    ingest_all: IngestAll, repository: Repository
) -> None:
    """The base of the first image arrives only when all images with other bases are published."""
    bases = [layer(file(f"base{number}", b"%d" % number * 500)) for number in range(4)]
    arrived = threading.Event()
    with OwnRegistry() as registry:
        names: list[list[str]] = []
        for number, base in enumerate(bases):
            names.append([f"team/x{number}-{each}" for each in range(4 if number else 1)])
            for name in names[number]:
                registry.add(name, "1", image(base, layer(file(name.replace("/", "-"), b"own"))))
        registry.misbehave(held(arrived), method="GET", path=bases[0].digest)
        others = [f"{registry.host}/{name}:1" for group in names[1:] for name in group]

        def let_it_arrive() -> None:
            wait_for(lambda: all(repository.link_text(name) for name in others), 60)
            arrived.set()

        waiting = threading.Thread(target=let_it_arrive)
        waiting.start()
        report = ingest_all(*(f"{registry.url}/{name}:1" for group in names for name in group))
        waiting.join()

        assert statuses(report) == ["published"] * 13
        fetched = [request.path for request in registry.seen("GET", "/blobs/")]
        assert len(fetched) == len(set(fetched)) == 4 + 13 + 13  # bases, own layers, configs
        assert sum(outcome.layers_fetched for outcome in report.outcomes) == 4 + 13


def test_the_largest_layer_is_fetched_first(ingest_all: IngestAll) -> None:
    sizes = (100, 30_000, 10, 3_000)
    layers = [layer(file(f"f{size}", random.Random(size).randbytes(size))) for size in sizes]
    with OwnRegistry() as registry:
        registry.add("team/x", "1", image(*layers))
        report = ingest_all(f"{registry.url}/team/x:1", jobs=1)
        asked = [each.path.rpartition("/")[2] for each in registry.requests if each.method == "GET"]
    assert statuses(report) == ["published"], report.outcomes
    largest_first = [layers[number].digest for number in (1, 3, 0, 2)]
    assert [digest for digest in asked if digest in largest_first] == largest_first
