"""The memory for contents of staged layers is bounded, and nothing changes it once it is read."""

from __future__ import annotations

import errno
import mmap
import os
import resource
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from publisher.ingest.report import Outcome, Status
from publisher.ingest.run import ingest
from publisher.layers.replay import PassOn, StagedContents, read_contents_here
from publisher.repository.cvmfs import kept as keeping
from publisher.repository.cvmfs.kept import KeptLayers, Memory
from publisher.repository.cvmfs.layer_stage import CvmfsLayerStage
from publisher.repository.cvmfs.repository import CvmfsRepository
from publisher.repository.cvmfs.spool import StagedLayer
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.verify.run import verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from publisher.workers.pool import Workers
from tests.cvmfs import Machine, make_machine
from tests.layer_builder import Layer, file, image, layer, whiteout, write_layout
from tests.trees import describe_tree
from tests.worker_stages import job

NAME = "images.test.org"
LIMIT = 100 * 4096


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeptLayers]:
    monkeypatch.setattr(keeping, "_LARGEST", 60 * 4096)
    with KeptLayers(LIMIT) as kept:
        yield kept
    assert kept._left == LIMIT


def reserved(layers: KeptLayers, blob_size: int = 1) -> Memory:
    memory = layers.reserve(blob_size)
    assert memory is not None
    return memory


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/a/b", {"a/memory.max": "80", "a/b/memory.max": "160"}, 10),
        ("0::/a/b", {"a/memory.max": "160", "a/b/memory.max": "80"}, 10),
        ("0::/a", {"a/memory.max": "max"}, keeping.DEFAULT_LIMIT),
        ("0::/../..", {"memory.max": "80"}, 10),
        ("4:memory:/a\n0::/", {"memory/a/memory.limit_in_bytes": "80"}, 10),
        ("4:memory:/on/the/host", {"memory/memory.limit_in_bytes": "80"}, 10),
        ("4:pids:/a", {"memory/a/memory.limit_in_bytes": "80"}, keeping.DEFAULT_LIMIT),
        (None, {}, keeping.DEFAULT_LIMIT),
    ],
)
def test_the_default_is_an_eighth_of_what_the_control_groups_permit(
    own: str | None,
    limits: dict[str, str],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, limit in limits.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    if own is not None:
        (tmp_path / "own").write_text(f"{own}\n")
    monkeypatch.setattr(keeping, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(keeping, "_ALL_GROUPS", tmp_path / "groups")
    assert keeping.default_limit() == min(expected, keeping._usable_memory() // 8)


def test_memory_is_reserved_whole_and_taken_as_far_as_it_is_used(layers: KeptLayers) -> None:
    first, second = reserved(layers), reserved(layers)
    assert (first.size, second.size) == (60 * 4096, 40 * 4096)
    assert layers.reserve(1) is None
    os.pwrite(first.descriptor, b"x" * 8192, 0)
    layers.complete(first)
    assert first.size == 8192
    third = reserved(layers)
    assert third.size == 58 * 4096
    for memory in (second, third):
        layers.give_back(memory)
    layers.keep("first", first)
    found = layers.mapped("first")
    assert found is not None and bytes(found[:9]) == b"x" * 8 + b"x"
    layers.forget("first")
    assert layers.mapped("first") is None
    assert bytes(found[:2]) == b"xx"  # a reader that has mapped it keeps it


def test_a_small_layer_reserves_what_it_probably_needs(
    layers: KeptLayers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_SMALLEST", 4096)
    found = [reserved(layers, pages * 4096) for pages in (1, 4, 4)]
    assert [memory.size // 4096 for memory in found] == [9, 33, 33]
    for memory in found:
        layers.give_back(memory)


def test_holes_are_not_read_since_that_takes_memory(layers: KeptLayers) -> None:
    memory = reserved(layers)
    os.pwrite(memory.descriptor, b"x" * 8192, 0)
    os.pwrite(memory.descriptor, b"x", 20 * 4096)
    layers.complete(memory)
    assert memory.size == 3 * 4096
    layers.keep("a", memory)
    found = layers.mapped("a")
    assert found is not None and bytes(found) == b"x" * 8192


def test_memory_that_was_not_written_is_not_kept(layers: KeptLayers) -> None:
    memory = reserved(layers)
    layers.complete(memory)
    layers.keep("a", memory)
    assert layers.mapped("a") is None


def test_memory_that_cannot_be_mapped_is_not_read(layers: KeptLayers) -> None:
    memory = reserved(layers)
    os.pwrite(memory.descriptor, b"x", 0)
    layers.complete(memory)
    layers.keep("a", memory)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        assert layers.mapped("a") is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert layers.mapped("a") is not None


def test_a_blob_that_hardly_fits_is_not_tried(layers: KeptLayers) -> None:
    assert layers.reserve(31 * 4096) is None
    layers.give_back(reserved(layers, 30 * 4096))


def test_a_layer_that_is_staged_again_replaces_what_was_kept(layers: KeptLayers) -> None:
    for content in (b"old", b"new"):
        memory = reserved(layers)
        os.pwrite(memory.descriptor, content, 0)
        layers.complete(memory)
        layers.keep("a", memory)
    found = layers.mapped("a")
    assert found is not None and bytes(found[:3]) == b"new"


def test_a_process_that_has_the_descriptor_cannot_change_size_nor_later_content(
    layers: KeptLayers,
) -> None:
    memory = reserved(layers)
    for size in (0, LIMIT):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.descriptor, size)
    with pytest.raises(PermissionError):
        os.pwrite(memory.descriptor, b"x", memory.size)
    os.pwrite(memory.descriptor, b"x", 0)
    layers.complete(memory)
    with pytest.raises(PermissionError):
        os.pwrite(memory.descriptor, b"y", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(memory.descriptor, 4096)
    layers.keep("a", memory)


def test_memory_that_a_process_still_has_is_not_kept(layers: KeptLayers) -> None:
    memory = reserved(layers)
    with mmap.mmap(memory.descriptor, 4096) as writable:
        layers.complete(memory)
        layers.keep("a", memory)
        writable[0] = 1
    assert layers.mapped("a") is None


def test_without_such_files_nothing_is_kept(
    layers: KeptLayers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, flags: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert layers.reserve(1) is None


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = make_machine(tmp_path / "machine", overlay=False)
    for key, value in machine.environment.items():
        monkeypatch.setenv(key, value)
    machine.make(NAME)
    return machine


BASE = layer(file("d/a", b"base"), file("d/b", b"below"), file("large", os.urandom(3_000_000)))
OWN = layer(file("d/a", b"own"), whiteout("d/b"), file("empty"))
OTHER = layer(file("other", b"in another layer"))


def publish(repository: CvmfsRepository, folder: Path, *layers: Layer, workers: int = 2) -> Outcome:
    write_layout(image(*layers), folder, "1")
    request = Request(wish_for(f"oci:{folder}:1", name="tool"))
    with Sources() as sources, Workers(workers) as pool:
        [outcome] = ingest([request], repository, sources, workers=pool).outcomes
    return outcome


@pytest.mark.parametrize("workers", [0, 2])
def test_a_layer_in_memory_is_published_as_one_in_the_spool(
    workers: int, machine: Machine, tmp_path: Path
) -> None:
    trees = []
    for memory in (keeping.DEFAULT_LIMIT, 0):
        name = f"of-{memory}.test.org"
        machine.make(name)
        read: list[StagedContents] = []

        def note(
            staged: StagedContents, read: list[StagedContents] = read
        ) -> AbstractContextManager[PassOn]:
            read.append(staged)
            return read_contents_here(staged)

        repository = machine.open(name, memory=memory, read_contents=note)
        try:
            outcome = publish(repository, tmp_path / name, BASE, OWN, workers=workers)
            assert outcome.status is Status.PUBLISHED, outcome.error
            assert len(read) == (0 if memory else 2)
            assert repository.mirror.kept._left == memory
            assert not verify(repository, deep=True).findings
        finally:
            repository.close()
        trees.append(describe_tree(machine.published(name) / layout.LAYERS))
    assert trees[0] == trees[1]


def test_a_layer_that_does_not_fit_takes_no_memory_until_it_is_sent(tmp_path: Path) -> None:
    large = layer(file("first", bytes(300_000)), file("second", bytes(300_000)))
    memory = KeptLayers(400_000)
    staged = StagedLayer(tmp_path / "staged", tmp_path / "blob")
    stage = CvmfsLayerStage(tmp_path / "stage", staged, "the layer", memory)
    with Workers(0) as here:
        here.unpack(stage, large.chunks(), job(large))
    assert memory._left < 100_000
    stage.finish()
    stage.close()
    assert memory._left == 400_000


def test_the_layers_of_an_image_that_fails_take_no_memory_afterwards(
    machine: Machine, tmp_path: Path
) -> None:
    repository = machine.open(NAME)
    try:
        built = image(BASE, OWN)
        write_layout(built, tmp_path / "layout", "1")
        blob = tmp_path / "layout/blobs/sha256" / OWN.descriptor.digest.removeprefix("sha256:")
        blob.write_bytes(bytes(len(OWN.blob)))
        request = Request(wish_for(f"oci:{tmp_path}/layout:1", name="tool"))
        with Sources() as sources, Workers(0) as here:
            [outcome] = ingest([request], repository, sources, workers=here).outcomes
        assert outcome.status is Status.FAILED
        assert repository.mirror.is_staged(BASE.descriptor.digest)
        assert repository.mirror.kept._left == keeping.DEFAULT_LIMIT
    finally:
        repository.close()


def test_a_layer_that_is_discarded_takes_no_memory(machine: Machine) -> None:
    repository = machine.open(NAME)
    try:
        with repository.stage_layer(OTHER.descriptor.digest) as stage, Workers(0) as here:
            here.unpack(stage, OTHER.chunks(), job(OTHER))
            stage.finish()
        kept, name = repository.mirror.kept, OTHER.descriptor.digest.removeprefix("sha256:")
        assert kept.mapped(name) is not None
        assert repository.mirror.discard_if_idle(name)
        assert kept.mapped(name) is None
    finally:
        repository.close()


def test_what_was_damaged_in_memory_is_fetched_again(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = KeptLayers.complete
    damaged: list[Memory] = []

    def damage(self: KeptLayers, memory: Memory) -> None:
        if not damaged:
            os.pwrite(memory.descriptor, b"X", 16)
            damaged.append(memory)
        complete(self, memory)

    monkeypatch.setattr(KeptLayers, "complete", damage)
    repository = machine.open(NAME)
    try:
        outcome = publish(repository, tmp_path / "layout", OTHER)
        assert outcome.status is Status.PUBLISHED, outcome.error
        assert damaged and outcome.layers_fetched == 2
        assert not verify(repository, deep=True).findings
    finally:
        repository.close()
