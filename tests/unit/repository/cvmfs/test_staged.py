"""A layer on its way: kept whole or not at all, whoever else keeps the same one."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from publisher.layers import replay
from publisher.layers.policy import Policy
from publisher.layers.unpack import unpack
from publisher.repository.cvmfs.repository import CvmfsRepository
from publisher.repository.cvmfs.spool import CvmfsLayerStage, SpoolFull
from tests.cvmfs import Machine
from tests.layer_builder import file, layer

NAME = "images.test.org"
LAYER = layer(file("a", b"a" * 1000))
DIGEST = LAYER.digest


@pytest.fixture
def repository(machine: Machine) -> Iterator[CvmfsRepository]:
    machine.make(NAME)
    repository = machine.open(NAME)
    yield repository
    repository.close()


def take_in(stage: CvmfsLayerStage) -> None:
    chunks = stage.keep([LAYER.blob])
    unpack(chunks, LAYER.descriptor, LAYER.diff_id, stage.sink, stage.index, Policy())


@pytest.mark.parametrize("moment", ["both", "published meanwhile", "given up meanwhile"])
def test_two_runs_that_take_in_one_layer_do_not_get_in_each_others_way(
    repository: CvmfsRepository, machine: Machine, moment: str
) -> None:
    other = machine.open(NAME)
    staged = repository.mirror.staged(DIGEST)
    with ExitStack() as stack:
        stack.callback(other.close)
        one = stack.enter_context(repository.stage_layer(DIGEST))
        two = stack.enter_context(other.stage_layer(DIGEST))
        take_in(one)
        take_in(two)
        one.finish()
        assert staged.is_complete()
        if moment == "published meanwhile":
            shutil.rmtree(staged.directory)  # it is moved away, and its blob forgotten
            staged.delete_blob()
        if moment == "given up meanwhile":
            repository.mirror.discard(DIGEST)
        two.finish()
        assert staged.is_complete()
    assert b"".join(staged.chunks()) == LAYER.blob


def test_a_layer_that_cannot_get_its_place_is_not_taken_for_one_that_is_there(
    repository: CvmfsRepository,
) -> None:
    place = repository.mirror.staged(DIGEST).directory.parent
    with repository.stage_layer(DIGEST) as stage:
        take_in(stage)
        place.rmdir()
        with pytest.raises(FileNotFoundError):
            stage.finish()
    place.mkdir()
    assert not repository.has_layer(DIGEST) and not list(repository.mirror.blobs.iterdir())


def test_a_disk_that_is_full_for_the_last_bytes_only_keeps_nothing(
    repository: CvmfsRepository,
) -> None:
    with repository.stage_layer(DIGEST) as stage:
        stage._blob.close()
        stage._blob = Path("/dev/full").open("wb")  # noqa: SIM115
        take_in(stage)  # what is this small is written at the end
        with pytest.raises(SpoolFull, match=r"No space left") as caught:
            stage.finish()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert not repository.has_layer(DIGEST) and not list(repository.mirror.blobs.iterdir())


def test_a_disk_that_is_full_for_the_order_of_contents_is_told_apart_from_temporary_files(
    repository: CvmfsRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_ORDER", f"{replay._ORDER} PRAGMA max_page_count = 20;")
    many = layer(*(file(f"{n:0200}") for n in range(1000)))
    with repository.stage_layer(many.digest) as stage:
        with pytest.raises(SpoolFull, match=r"cannot keep a layer in .*full"):
            chunks = stage.keep([many.blob])
            unpack(chunks, many.descriptor, many.diff_id, stage.sink, stage.index, Policy())
    assert not repository.has_layer(many.digest)
