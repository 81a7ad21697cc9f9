"""Space on the disk is checked before anything is downloaded, and a lack is explained."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.ingest.run import ingest
from publisher.ingest.space import DiskSpace, NotEnoughSpace
from publisher.sources.open import Sources
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.layer_builder import file, image, layer
from tests.memory_repository import MemoryRepository
from tests.transactions.scenarios import Stage

SECONDS = 60
"""How long a test waits for threads that wait for each other."""


class SmallDisk(MemoryRepository):
    """A repository with this many bytes left."""

    def __init__(self, free: int) -> None:
        super().__init__()
        self.free = free
        self.staged = 0

    def free_space(self) -> int | None:
        return self.free

    def stage_layer(self, digest: str):  # type: ignore[no-untyped-def]
        self.staged += 1
        return super().stage_layer(digest)


def test_an_image_that_cannot_fit_is_refused_before_its_first_byte(tmp_path: Path) -> None:
    layers = [layer(file(f"f{n}", os.urandom(40_000)), compression="none") for n in range(2)]
    Stage(tmp_path).put(image(*layers), "big")
    size = sum(each.descriptor.size for each in layers)
    wish = wish_for(f"oci:{tmp_path}/layout:big", name="tool")
    for free, fits in ((size - 1, False), (size, True)):
        repository = SmallDisk(free)
        with Sources() as sources:
            report = ingest([Request(wish)], repository, sources)
        assert (repository.staged > 0) == fits
        assert bool(report.failed) != fits
        for outcome in report.failed:
            assert "0.1 MB are still to be downloaded" in outcome.error
            assert "missing" in outcome.error


def no_longer() -> None:
    raise TimeoutError


def test_an_image_waits_while_others_that_take_its_space_are_in_progress() -> None:
    repository = SmallDisk(250)
    space = DiskSpace(repository)
    one, two, three = {"one": 60, "shared": 20}, {"two": 20, "shared": 20}, {"three": 1}
    with space.reserve(one, no_longer) as first:
        space.began("one", 60)
        shared = [first.was_shared]
        with space.reserve(two, no_longer) as second:
            assert [*shared, first.was_shared, second.was_shared] == [False, True, True]
            with pytest.raises(TimeoutError), space.reserve(three, no_longer):
                pass
            space.arrived("one", 10)
            with space.reserve(three, no_longer):
                pass
            with pytest.raises(TimeoutError), space.reserve({}, no_longer, alone=True):
                pass
            space.require()
            repository.free = 89  # of which 90 are to come
            with pytest.raises(NotEnoughSpace) as caught:
                space.require()
            assert (caught.value.needed, caught.value.free) == (90, 89)
    with space.reserve({"huge": 1000}, no_longer) as only:
        assert not only.was_shared
        with pytest.raises(NotEnoughSpace) as caught:
            space.require()
        assert (caught.value.needed, caught.value.free) == (1000, 89)
    with space.reserve(one, no_longer, alone=True):
        with pytest.raises(TimeoutError), space.reserve({}, no_longer):
            pass


class Drawn(Exception):
    """An image that failed, or was interrupted while it waited."""


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 120), st.booleans(), st.sampled_from(["", "fails", "leaves"])),
        min_size=1,
        max_size=8,
    )
)
def test_any_images_get_their_turn_and_an_image_alone_has_no_others_beside_it(
    images: list[tuple[int, bool, str]],
) -> None:
    space = DiskSpace(SmallDisk(250))
    lock = threading.Lock()
    present: list[bool] = []
    ended: list[int] = []

    def leave() -> None:
        raise Drawn

    def work(number: int, size: int, alone: bool, end: str) -> None:
        keep_waiting = leave if end == "leaves" else lambda: None
        layers = {str(number): size}
        with suppress(Drawn), space.reserve(layers, keep_waiting, alone=alone) as reservation:
            with lock:
                assert not (alone and present) and True not in present
                present.append(alone)
                assert reservation.was_shared or present == [alone]
            space.require()
            with lock:
                present.remove(alone)
            if end == "fails":
                raise Drawn
        ended.append(number)

    with ThreadPoolExecutor(len(images)) as pool:
        for future in [pool.submit(work, number, *each) for number, each in enumerate(images)]:
            future.result(SECONDS)
    assert sorted(ended) == list(range(len(images)))
    with space.reserve({}, no_longer, alone=True):
        pass


def test_a_full_disk_is_explained_and_other_errors_are_unchanged() -> None:
    space = DiskSpace(SmallDisk(1_000_000))
    full = space.explained_download(OSError(errno.ENOSPC, "No space left on device"), 2_000_000)
    assert isinstance(full, NotEnoughSpace)
    assert "1.0 MB are free, about 5.0 MB were needed: some 4.0 MB are missing" in str(full)
    other = OSError(errno.EIO, "Input/output error")
    assert space.explained_download(other, 1) is other


def test_a_quota_that_is_used_up_is_not_explained_by_the_free_space_of_the_disk() -> None:
    space = DiskSpace(SmallDisk(10**12))
    explained = space.explained_download(OSError(errno.EDQUOT, "Disk quota exceeded"), 2_000_000)
    assert isinstance(explained, NotEnoughSpace)
    assert "quota" in explained.hint and "5.0 MB were needed" in explained.why
    assert "inodes" not in str(explained) and "missing" not in str(explained)
