"""An ingest with worker processes: what happens to one affects its image only."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.ingest.report import Status
from publisher.ingest.run import ingest
from publisher.oci.reference import ImageReference
from publisher.repository.directory.layer_stage import DirectoryLayerStage
from publisher.repository.directory.repository import DirectoryRepository
from publisher.sources import Source
from publisher.sources.open import Sources
from publisher.tree.layout import RepositoryURL
from publisher.verify.run import verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from publisher.workers import fork_server
from publisher.workers.pool import Workers
from tests.layer_builder import file, image, layer, write_layout
from tests.worker_stages import ENVIRONMENT, children, probed_workers, server_pid

SHARED = layer(file("shared", b"1"))
IMAGES = [image(SHARED, layer(file(f"own-{n}", os.urandom(1000)))) for n in range(3)]


@pytest.fixture
def workers() -> Iterator[Workers]:
    with probed_workers() as opened:
        yield opened


def probe(monkeypatch: pytest.MonkeyPatch, digest: str, *words: str) -> None:
    """Let the worker of the layer `digest` call a function of tests/worker_server.py."""
    create = DirectoryLayerStage.__init__

    def probed(stage: DirectoryLayerStage, directory: Path, finished: Path, layer: str) -> None:
        create(stage, directory, finished, layer)
        if digest in layer:
            (directory / "probe").write_text(json.dumps(words))

    monkeypatch.setattr(DirectoryLayerStage, "__init__", probed)


def test_a_worker_that_dies_fails_its_image_alone_and_the_next_run_completes(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    requests = []
    for number, built in enumerate(IMAGES):
        write_layout(built, tmp_path / "layout", str(number))
        requests.append(Request(wish_for(f"oci:{tmp_path}/layout:{number}", name="tool")))
    url = RepositoryURL("dir", str(tmp_path / "images"))
    repository = DirectoryRepository(url, writable=True, may_be_new=True)
    victim = IMAGES[1].layers[1].digest
    with monkeypatch.context() as patch, Sources() as sources:
        probe(patch, victim, "end_by", str(int(signal.SIGKILL)))
        report = ingest(requests, repository, sources, workers=workers)
    [failed] = report.failed
    assert failed.reference.endswith(":1")
    assert f"cannot unpack layer {victim}" in failed.error and "SIGKILL" in failed.error
    assert [each.status for each in report.outcomes].count(Status.PUBLISHED) == 2
    assert not children(server_pid(workers))
    session = repository.staging.session
    assert [path.name for path in session.rglob("*")] == ["deleting"]
    with Sources() as sources:
        again = ingest(requests, repository, sources, workers=workers, retry_failed=True)
    assert not again.failed
    assert [each.layers_fetched for each in again.outcomes] == [0, 1, 0]
    assert not verify(repository, deep=True).findings
    repository.close()


def test_an_interrupted_run_ends_its_workers(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_layout(IMAGES[0], tmp_path / "layout", "0")
    wish = wish_for(f"oci:{tmp_path}/layout:0", name="tool")
    url = RepositoryURL("dir", str(tmp_path / "images"))
    repository = DirectoryRepository(url, writable=True, may_be_new=True)
    probe(monkeypatch, IMAGES[0].layers[1].digest, "hang")
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with Sources() as sources:
        report = ingest([Request(wish)], repository, sources, workers=workers, stop=stop)
    timer.join()
    assert report.interrupted and not report.failed
    assert not children(server_pid(workers))
    repository.close()
    assert not list((tmp_path / "images/.metadata/.publisher/sessions").iterdir())


def test_the_server_of_workers_starts_while_the_source_of_a_new_image_is_asked(
    workers: Workers, tmp_path: Path
) -> None:
    write_layout(IMAGES[0], tmp_path / "layout", "0")
    wish = wish_for(f"oci:{tmp_path}/layout:0", name="tool")
    url = RepositoryURL("dir", str(tmp_path / "images"))
    runs = []

    class Watched(Sources):
        def open(self, reference: ImageReference) -> Source:
            runs.append(used._server._running is not None)
            return super().open(reference)

    repository = DirectoryRepository(url, writable=True, may_be_new=True)
    for used in (workers, Workers(1, ENVIRONMENT)):
        with Watched() as sources:
            assert not ingest([Request(wish)], repository, sources, workers=used).failed
    repository.close()
    assert runs == [True, False]  # the image is published, and needs none


def test_only_an_image_with_layers_to_unpack_fails_if_workers_cannot_be_started(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = RepositoryURL("dir", str(tmp_path / "images"))
    repository = DirectoryRepository(url, writable=True, may_be_new=True)
    for built, tag in ((IMAGES[0], "0"), (image(SHARED), "shared"), (IMAGES[1], "1")):
        write_layout(built, tmp_path / "layout", tag)
    first, *others = (
        Request(wish_for(f"oci:{tmp_path}/layout:{tag}", name="tool"))
        for tag in ("0", "shared", "1")
    )
    with Sources() as sources:
        assert not ingest([first], repository, sources, workers=workers).failed
        monkeypatch.setattr(fork_server, "COMMAND", (str(tmp_path / "absent"),))
        with Workers(2, ENVIRONMENT) as absent:
            report = ingest(others, repository, sources, workers=absent)
    repository.close()
    assert [each.status for each in report.outcomes] == [Status.PUBLISHED, Status.FAILED]
    assert "cannot start a worker process" in report.outcomes[1].error
