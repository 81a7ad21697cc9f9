"""The size of the layers that wait to be published is limited, and all images are published."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from publisher.ingest.run import ingest
from publisher.repository.cvmfs.layer_stage import CvmfsLayerStage
from publisher.repository.cvmfs.repository import CvmfsRepository
from publisher.repository.cvmfs.spool import Spool
from publisher.sources.open import Sources
from publisher.verify.run import verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.command import publisher
from tests.cvmfs import Machine
from tests.layer_builder import file, image, layer, write_layout
from tests.registry import wait_for
from tests.threads import threads_in

NAME = "images.test.org"


@dataclass
class Place:
    """A spool of 100 bytes on a disk of 1000."""

    folder: Path
    free: int = 1000
    busy: bool = False
    discarded: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.blobs = self.folder / "blobs"
        self.session = self.folder / "sessions/own"
        for directory in (self.blobs, self.session):
            directory.mkdir(parents=True)
        self.spool = Spool(
            self.blobs,
            self.session,
            100,
            self.discard,
            lambda: self.free,
            self.forgotten.append,
        )

    def keep(self, name: str, size: int, age: float = 0) -> None:
        (self.blobs / name).write_bytes(bytes(size))
        os.utime(self.blobs / name, (time.time() - age, time.time() - age))

    def discard(self, name: str) -> bool:
        if not self.busy:
            (self.blobs / name).unlink()
            self.discarded.append(name)
        return not self.busy

    def fits(self, layers: dict[str, int]) -> bool:
        """Whether space is granted at once."""
        try:
            with self.spool.reserve(layers, no_longer):
                return True
        except TimeoutError:
            return False


def no_longer() -> None:
    raise TimeoutError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_images_share_the_space_up_to_the_limit_and_a_shared_layer_counts_once(
    place: Place,
) -> None:
    with place.spool.reserve({"a": 40, "shared": 30}, no_longer):
        assert place.fits({"b": 30, "shared": 30})
        assert not place.fits({"b": 31, "shared": 30})
        with place.spool.reserve({"b": 30}, no_longer):
            assert not place.fits({"c": 1})
        assert place.fits({"c": 1})


def test_a_layer_is_forgotten_once_no_image_needs_it(place: Place) -> None:
    with place.spool.reserve({"a": 1, "shared": 1}, no_longer):
        with place.spool.reserve({"b": 1, "shared": 1}, no_longer):
            assert not place.forgotten
        assert place.forgotten == ["b"]
    assert sorted(place.forgotten) == ["a", "b", "shared"]


def test_an_image_larger_than_the_limit_is_admitted_alone(place: Place) -> None:
    assert place.fits({"huge": 500})
    with place.spool.reserve({"a": 1}, no_longer):
        assert not place.fits({"huge": 500})
    with place.spool.reserve({"huge": 500}, no_longer):
        assert not place.fits({"a": 1})
        assert place.fits({}), "what needs nothing waits for nothing"


def test_layers_of_interrupted_runs_count_and_the_oldest_are_discarded_first(place: Place) -> None:
    for name, age in (("young", 10), ("old", 1000), ("middle", 100)):
        place.keep(name, 30, age)
    assert place.fits({"new": 10}) and not place.discarded
    assert place.fits({"new": 45})
    assert place.discarded == ["old", "middle"]
    place.keep("old", 30, 1000)
    assert place.fits({"old": 30, "new": 60}), "a requested layer is not discarded"
    assert place.discarded == ["old", "middle", "young"]


def test_layers_of_interrupted_runs_are_discarded_if_the_disk_is_full(place: Place) -> None:
    place.free = 5
    place.keep("old", 10, 100)
    assert place.fits({"new": 50}), "the space for the layer itself is not checked here"
    assert place.discarded == ["old"]


def test_layers_of_a_running_process_are_not_discarded(place: Place) -> None:
    place.keep("interrupted", 30, 1000)
    other = place.session.with_name("other")
    (other / "0").mkdir(parents=True)
    (other / "0/blob").write_bytes(bytes(20))
    place.keep("other", 40, -1)
    with place.spool.reserve({"a": 10}, no_longer):
        assert not place.fits({"b": 40})
        assert place.discarded == ["interrupted"]
        assert place.fits({"b": 30})
    assert place.fits({"c": 90}), "the only image of its run, whatever others do"


def test_while_another_process_publishes_nothing_is_discarded_and_images_wait(place: Place) -> None:
    place.keep("old", 80, 100)
    place.busy = True
    with place.spool.reserve({"a": 10}, no_longer):
        assert not place.fits({"b": 50})
    assert not place.discarded


def test_space_is_granted_in_the_order_of_requests(place: Place) -> None:
    came: list[str] = []

    def image_of(name: str, size: int) -> threading.Thread:
        def run() -> None:
            with place.spool.reserve({name: size}, lambda: None):
                came.append(name)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with place.spool.reserve({"first": 60}, no_longer):
        threads = []
        for name, size in (("large", 90), ("small", 10)):
            threads.append(image_of(name, size))
            wait_for(lambda: len(place.spool._queue) == len(threads))
        assert not came, "a small one does not overtake a large one for ever"
    for thread in threads:
        thread.join(10)
    assert came == ["large", "small"]


@contextmanager
def bounded(machine: Machine, limit: int) -> Iterator[CvmfsRepository]:
    like = machine.open(NAME)
    like.close()
    repository = CvmfsRepository(
        like.url,
        writable=True,
        spool=limit,
        state=machine.state,
        configuration=machine.configuration,
    )
    yield repository
    repository.close()


@pytest.mark.parametrize(("limit", "most"), [(2_500_000, 2), (100_000, 1), (10**9, 6)])
def test_the_spool_keeps_its_limit_however_many_images_are_fetched_at_once(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    most: int,
) -> None:
    """Images of 1 MB in two layers; all are published in the end, also where each is too large."""
    machine.make(NAME)
    requests = []
    for number in range(6):
        halves = [layer(file(f"{number}-{n}", os.urandom(500_000))) for n in range(2)]
        write_layout(image(*halves), tmp_path / "layout", f"{number}")
        requests.append(Request(wish_for(f"oci:{tmp_path}/layout:{number}", name="tool")))
    seen: list[int] = []
    finish = CvmfsLayerStage.finish

    def watched(stage: CvmfsLayerStage) -> None:
        finish(stage)
        seen.append(
            sum(p.stat().st_size for p in repository.mirror.blobs.iterdir() if not p.suffix)
        )
        if most == 6:
            wait_for(lambda: len(seen) >= 6, 60)
        else:
            wait_for(lambda: bool(seen[most:]) or threads_in(Spool._wait) == 6 - most, 60)

    monkeypatch.setattr(CvmfsLayerStage, "finish", watched)
    with bounded(machine, limit) as repository, Sources() as sources:
        report = ingest(requests, repository, sources, jobs=6)
        assert not report.failed
        assert not list(repository.mirror.blobs.iterdir())
        assert not verify(repository).findings
    assert len(seen) == 12
    assert max(seen) <= max(limit, 1_100_000)
    assert max(seen) <= most * 1_100_000
    if most > 2:
        assert max(seen) > 2_500_000, "without the bound it would be exceeded"


def test_a_staged_layer_that_was_damaged_on_disk_is_fetched_again(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.make(NAME)
    built = image(layer(file("a", os.urandom(100_000))))
    write_layout(built, tmp_path / "layout", "1")
    finish = CvmfsLayerStage.finish
    spoiled: list[Path] = []

    def spoiling(stage: CvmfsLayerStage) -> None:
        finish(stage)
        [blob] = [path for path in repository.mirror.blobs.iterdir() if not path.suffix]
        if not spoiled:
            data = bytearray(blob.read_bytes())
            data[1000] ^= 1
            blob.write_bytes(data)
            spoiled.append(blob)

    monkeypatch.setattr(CvmfsLayerStage, "finish", spoiling)
    with bounded(machine, 10**9) as repository, Sources() as sources:
        wish = wish_for(f"oci:{tmp_path}/layout:1", name="tool")
        report = ingest([Request(wish)], repository, sources)
        assert not report.failed, report.failed
        assert not verify(repository, deep=True).findings
    assert spoiled and machine.revision(NAME) == 2


def test_the_limits_are_set_by_the_environment_and_parsed_strictly(
    machine: Machine, tmp_path: Path
) -> None:
    machine.make(NAME)
    write_layout(image(layer(file("a", b"a"))), tmp_path / "layout", "1")
    words = ("ingest-image", f"oci:{tmp_path}/layout:1", "--repository", f"cvmfs:{NAME}")
    for name in ("PUBLISHER_SPOOL_LIMIT", "PUBLISHER_SPOOL_MEMORY"):
        for text in ("much", "-1", "20 X", "GB"):
            refused = publisher(*words, env={**machine.environment, name: text})
            assert refused.code == 2
            assert f"cannot use {name}\n  why: {text!r} is not a size" in refused.err
        for text in ("1", "500M", "20G", "1TB", "256MiB"):
            assert publisher(*words, env={**machine.environment, name: text}).code == 0
