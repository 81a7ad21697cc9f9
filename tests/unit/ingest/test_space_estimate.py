"""Space on the disk is checked before anything is downloaded, and a lack is explained."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from publisher.ingest.run import ingest
from publisher.ingest.space import DiskSpace, NotEnoughSpace
from publisher.sources.open import Sources
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.layer_builder import file, image, layer
from tests.memory_repository import MemoryRepository
from tests.transactions.scenarios import Stage


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


def test_the_space_for_several_images_is_added_up() -> None:
    space = DiskSpace(SmallDisk(100))
    space.expect(60)
    with pytest.raises(NotEnoughSpace) as caught:
        space.expect(41)
    assert (caught.value.needed, caught.value.free) == (101, 100)
    space.expect(40)
    space.arrived(50)  # and is on the disk by now
    space.expect(50)


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
