"""A real worker process that its layer has taken over cannot misuse the memory for contents."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.ingest.report import Outcome, Status
from publisher.ingest.run import ingest
from publisher.repository.cvmfs.kept import DEFAULT_LIMIT
from publisher.repository.cvmfs.repository import CvmfsRepository
from publisher.sandbox import Measure
from publisher.sources.open import Sources
from publisher.verify.run import verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from publisher.workers import fork_server
from publisher.workers.pool import Workers
from tests import hostile_memory, worker_server
from tests.components import require_root
from tests.confined import in_a_child, lacking
from tests.cvmfs import Machine, make_machine
from tests.layer_builder import file, image, layer, write_layout
from tests.worker_stages import ENVIRONMENT, Stages, probed_workers, unpack

NAME = "images.test.org"
LAYER = layer(file("random", os.urandom(200_000)), file("zeros", bytes(200_000)))


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with probed_workers() as opened:
        yield opened


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CvmfsRepository]:
    machine: Machine = make_machine(tmp_path / "machine", overlay=False)
    for key, value in machine.environment.items():
        monkeypatch.setenv(key, value)
    machine.make(NAME)
    opened = machine.open(NAME)
    yield opened
    opened.close()


def publish(repository: CvmfsRepository, folder: Path, workers: Workers) -> Outcome:
    write_layout(image(LAYER), folder, "1")
    request = Request(wish_for(f"oci:{folder}:1", name="tool"))
    with Sources() as sources:
        [outcome] = ingest([request], repository, sources, workers=workers).outcomes
    return outcome


def request(session: Path, *words: str) -> Path:
    """Let all workers that unpack the layer in this session obey."""
    probe = session / f"unpack-{LAYER.descriptor.digest}"
    probe.write_text(json.dumps(words))
    return probe


def test_what_would_harm_the_publisher_is_refused(workers: Workers, tmp_path: Path) -> None:
    require_root()
    stages = Stages(tmp_path)
    stage = stages.make("order")
    request(tmp_path, "attack_memory")
    unpack(workers, stage, LAYER)
    results = json.loads((stage.place.directory / "attempts").read_text())
    assert results == {each.__name__: "EPERM" for each in hostile_memory.REFUSED}
    stage.finish()
    assert stages.memory.mapped("0") is not None


@pytest.mark.parametrize("attack", ["change", "punch_holes", "refer_to_holes", "refer_beyond"])
def test_contents_that_a_worker_forges_are_not_published(
    attack: str, repository: CvmfsRepository, workers: Workers, tmp_path: Path
) -> None:
    probe = request(repository.mirror.tree.staging.session, "attack_memory", attack)
    outcome = publish(repository, tmp_path / "layout", workers)
    assert outcome.status is Status.FAILED
    assert "staged copy is damaged" in outcome.error
    assert repository.mirror.kept._left == DEFAULT_LIMIT
    probe.unlink()
    outcome = publish(repository, tmp_path / "layout", workers)
    assert outcome.status is Status.PUBLISHED, outcome.error
    assert not verify(repository, deep=True).findings


@pytest.mark.parametrize("attack", ["forbid_seals", "leave_a_process"])
def test_memory_stays_as_it_was_checked_where_system_calls_are_not_filtered(
    attack: str, repository: CvmfsRepository, tmp_path: Path
) -> None:
    require_root()

    def publish_there(writer: int) -> None:
        lacking(Measure.SYSTEM_CALLS)
        fork_server.COMMAND = worker_server.COMMAND
        request(repository.mirror.tree.staging.session, "attack_memory", attack)
        with Workers(1, ENVIRONMENT) as workers:
            outcome = publish(repository, tmp_path / "layout", workers)
        os.write(writer, f"{outcome.status} {outcome.error}".encode())

    result = in_a_child(publish_there)
    if attack == "forbid_seals":  # the blob is read again
        assert result == f"{Status.PUBLISHED} "
    else:
        assert result.startswith(Status.FAILED) and "staged copy is damaged" in result
