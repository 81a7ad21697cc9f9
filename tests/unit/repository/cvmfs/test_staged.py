"""Staging a layer: it is kept completely or not at all, also if another run stages it too."""

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
from publisher.repository.cvmfs.layer_stage import CvmfsLayerStage
from publisher.repository.cvmfs.repository import CvmfsRepository
from publisher.repository.cvmfs.spool import SpoolFull
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


def stage_blob(stage: CvmfsLayerStage) -> None:
    chunks = stage.keep([LAYER.blob])
    with stage.open_files() as files:
        unpack(chunks, LAYER.descriptor, LAYER.diff_id, files.sink, files.index, Policy())


@pytest.mark.parametrize("moment", ["both", "published concurrently", "discarded concurrently"])
def test_two_runs_can_stage_the_same_layer_at_once(
    repository: CvmfsRepository, machine: Machine, moment: str
) -> None:
    other = machine.open(NAME)
    staged = repository.mirror.staged(DIGEST)
    with ExitStack() as stack:
        stack.callback(other.close)
        one = stack.enter_context(repository.stage_layer(DIGEST))
        two = stack.enter_context(other.stage_layer(DIGEST))
        stage_blob(one)
        stage_blob(two)
        one.finish()
        assert staged.is_complete()
        if moment == "published concurrently":
            shutil.rmtree(staged.directory)  # it is moved away, and its blob forgotten
            staged.delete_blob()
        if moment == "discarded concurrently":
            repository.mirror.discard(DIGEST)
        two.finish()
        assert staged.is_complete()
    assert b"".join(staged.chunks()) == LAYER.blob


def test_a_layer_that_cannot_be_moved_to_its_place_does_not_count_as_staged(
    repository: CvmfsRepository,
) -> None:
    place = repository.mirror.staged(DIGEST).directory.parent
    with repository.stage_layer(DIGEST) as stage:
        stage_blob(stage)
        place.rmdir()
        with pytest.raises(FileNotFoundError):
            stage.finish()
    place.mkdir()
    assert not repository.has_layer(DIGEST) and not list(repository.mirror.blobs.iterdir())


def test_nothing_is_kept_if_the_disk_is_full_for_the_last_bytes(
    repository: CvmfsRepository,
) -> None:
    with repository.stage_layer(DIGEST) as stage:
        stage._blob.close()
        stage._blob = Path("/dev/full").open("wb")  # noqa: SIM115
        stage_blob(stage)  # what is this small is written at the end
        with pytest.raises(SpoolFull, match=r"No space left") as caught:
            stage.finish()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert not repository.has_layer(DIGEST) and not list(repository.mirror.blobs.iterdir())


def test_a_spool_that_is_full_for_the_order_of_contents_is_named_and_not_the_temporary_directory(
    repository: CvmfsRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_ORDER", f"{replay._ORDER} PRAGMA max_page_count = 20;")
    many = layer(*(file(f"{n:0200}") for n in range(1000)))
    with pytest.raises(SpoolFull, match=r"cannot keep a layer in .*full"):
        with repository.stage_layer(many.digest) as stage, stage.open_files() as files:
            chunks = stage.keep([many.blob])
            unpack(chunks, many.descriptor, many.diff_id, files.sink, files.index, Policy())
    assert not repository.has_layer(many.digest)
