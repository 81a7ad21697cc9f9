"""Workers that are killed, or hang, while images are committed together."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from publisher.cli.failures import run_reporting_failures
from publisher.cli.main import publisher
from publisher.ingest.report import Report, Status
from publisher.ingest.run import ingest
from publisher.repository import Repository
from publisher.repository.cvmfs.kept import DEFAULT_LIMIT
from publisher.repository.cvmfs.repository import CvmfsRepository
from publisher.repository.directory.repository import DirectoryRepository
from publisher.sources.open import Sources
from publisher.verify.run import verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from publisher.workers.pool import Workers
from tests.any_repository import KINDS, NAME, AnyRepository, environment_of, make_repository
from tests.gathering import gathered_commits
from tests.layer_builder import Image, directory, file, image, layer, symlink, write_layout
from tests.worker_stages import ENVIRONMENT, children, descriptors, probed_workers, server_pid

SHARED = layer(file("shared", b"1"))
STEPS = (1, 4, 16, 64, 256)
"""Before which operations of a worker it is killed: as it is confined, reads, writes and answers.

`tests/unit/workers` kills one at each of its operations; the publisher receives the same then.
"""


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with probed_workers() as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class Place:
    """A repository, opened with workers, and the directory of its session."""

    any: AnyRepository
    repository: Repository
    session: Path
    workers: Workers
    layouts: Path
    memory_files: int

    def images(self, name: str) -> list[Image]:
        """Three new images; the second one is the one whose worker is killed."""
        built = []
        for number in range(3):
            members = (directory("d"), file("d/f", f"{name}-{number}".encode()), symlink("l", "d"))
            built.append(image(SHARED, layer(*members)))
            write_layout(built[-1], self.layouts, f"{name}-{number}")
        return built

    def ingest(self, name: str, together: int) -> Report:
        """Publish these images, so many of them by the first commit."""
        requests = [
            Request(wish_for(f"oci:{self.layouts}:{name}-{number}", name="tool"))
            for number in range(3)
        ]
        with Sources() as sources, gathered_commits(together):
            return ingest(
                requests, self.repository, sources, jobs=3, group=16, workers=self.workers
            )

    @contextmanager
    def requested(self, what: str, built: Image, *words: str) -> Iterator[Path]:
        """Within the block, the worker for the own layer of an image gets this request."""
        request = self.session / f"{what}-{built.layers[1].digest}"
        request.write_text(json.dumps(words))
        yield request
        request.unlink(missing_ok=True)

    def published_together(self) -> list[set[str]]:
        """The images that each transaction published, the latest first."""
        found = [
            {change.name for change in record.changes if change.what == "published"}
            for record in self.repository.history()
        ]
        return [names for names in found if names]

    def assert_sound(self) -> None:
        assert not children(server_pid(self.workers))
        assert memory_files() == self.memory_files, "memory for contents"
        assert verify(self.repository, deep=True).findings == ()
        assert [path.name for path in self.session.iterdir()] in ([], ["deleting"])


def memory_files() -> int:
    """How many files in memory this process has open; those of other tests may be among them."""
    return descriptors().count("/memfd")


@contextmanager
def opened(
    kind: str, folder: Path, workers: Workers, *, memory: int = DEFAULT_LIMIT
) -> Iterator[Place]:
    """A new repository of one of KINDS; on CVMFS, `memory` is for the contents of layers."""
    place = make_repository(kind, folder)
    with environment_of(place):
        repository: Repository
        if place.machine is None:
            repository = place.open()
            assert isinstance(repository, DirectoryRepository)
            staging = repository.staging
        else:
            repository = place.machine.open(
                NAME, read_contents=workers.read_contents, memory=memory
            )
            assert isinstance(repository, CvmfsRepository)
            staging = repository.mirror.tree.staging
        try:
            session, layouts = staging.session, folder / "layouts"
            yield Place(place, repository, session, workers, layouts, memory_files())
        finally:
            repository.close()


def statuses(report: Report) -> Sequence[Status]:
    return [each.status for each in report.outcomes]


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_whose_worker_is_killed_is_left_out_of_the_commit_of_the_others(
    kind: str, workers: Workers, tmp_path: Path
) -> None:
    with opened(kind, tmp_path, workers) as place:
        for step in STEPS:
            name = f"at-{step}"
            built = place.images(name)
            with place.requested("unpack", built[1], "once", "kill_at", str(step)) as request:
                report = place.ingest(name, together=2)
                assert not request.exists()
            if not report.failed:
                break  # it has answered before that
            assert statuses(report) == [Status.PUBLISHED, Status.FAILED, Status.PUBLISHED]
            assert f"cannot unpack layer {built[1].layers[1].digest}" in report.outcomes[1].error
            assert "SIGKILL" in report.outcomes[1].error
            assert place.published_together()[0] == {
                f"local/tool:{name}-0",
                f"local/tool:{name}-2",
            }
            again = place.ingest(name, together=1)
            assert statuses(again) == [Status.UNCHANGED, Status.PUBLISHED, Status.UNCHANGED]
            assert [each.layers_fetched for each in again.outcomes] == [0, 1, 0]
        assert step > 16
        place.assert_sound()


def test_a_worker_that_is_killed_in_the_commit_of_a_group_costs_no_image(
    workers: Workers, tmp_path: Path
) -> None:
    """A worker reads layers again that are not in memory; each image is then tried alone."""
    with opened("cvmfs", tmp_path, workers, memory=0) as place:
        for step in STEPS:
            name = f"at-{step}"
            built = place.images(name)
            with place.requested("contents", built[1], "once", "kill_at", str(step)) as request:
                report = place.ingest(name, together=3)
                assert not request.exists()
            assert statuses(report) == [Status.PUBLISHED] * 3
            if len(place.published_together()[0]) == 3:
                break  # it has answered before that
            assert [len(names) for names in place.published_together()[:3]] == [1, 1, 1]
        assert step > 4
        place.assert_sound()


@pytest.mark.parametrize("step", [1, 4])
def test_an_image_whose_worker_is_killed_in_each_commit_is_the_one_that_fails(
    step: int, workers: Workers, tmp_path: Path
) -> None:
    with opened("cvmfs", tmp_path, workers, memory=0) as place:
        built = place.images("x")
        with place.requested("contents", built[1], "kill_at", str(step)):
            report = place.ingest("x", together=3)
        assert statuses(report) == [Status.PUBLISHED, Status.FAILED, Status.PUBLISHED]
        assert f"cannot send layer {built[1].layers[1].digest}" in report.outcomes[1].error
        assert "SIGKILL" in report.outcomes[1].error
        assert place.any.machine is not None
        assert b"transaction" not in place.any.machine.server("list").stdout
        again = place.ingest("x", together=1)
        assert statuses(again) == [Status.UNCHANGED, Status.PUBLISHED, Status.UNCHANGED]
        assert again.outcomes[1].layers_fetched == 0
        place.assert_sound()


def test_an_interrupt_ends_a_commit_that_waits_for_a_worker_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server's transaction is aborted, nothing is left, and the next run publishes all."""
    with probed_workers() as workers, opened("cvmfs", tmp_path, workers, memory=0) as place:
        built = place.images("x")
        machine = place.any.machine
        assert machine is not None
        before = machine.revision(NAME)
        wishes = "".join(
            f"- {{image: 'oci:{place.layouts}:x-{number}', name: tool}}\n" for number in range(3)
        )
        (tmp_path / "wishes.yaml").write_text(f"version: 2\nimages:\n{wishes}")
        words = ("ingest", str(tmp_path / "wishes.yaml"), "--repository", place.any.url)
        monkeypatch.setattr("sys.argv", ["publisher", *words, "--workers", "1", "--jobs", "3"])
        monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
        monkeypatch.setenv("PUBLISHER_SPOOL_MEMORY", "0")

        def sessions() -> set[Path]:
            return {each for each in place.session.parent.iterdir() if each.is_dir()}

        def interrupt() -> None:
            [session] = sessions() - {place.session}
            (session / f"contents-{built[1].layers[1].digest}").write_text('["hang"]')
            os.kill(os.getpid(), signal.SIGINT)

        with gathered_commits(3, interrupt):
            assert run_reporting_failures(publisher) == 130
        shown = capfd.readouterr()
        assert "publisher: interrupted; the next run goes on from there" in shown.err
        assert "cannot" not in shown.err + shown.out
        assert machine.revision(NAME) == before
        assert b"transaction" not in machine.server("list").stdout
        assert sessions() == {place.session}
        again = place.ingest("x", together=3)
        assert statuses(again) == [Status.PUBLISHED] * 3
        assert [each.layers_fetched for each in again.outcomes] == [0, 0, 0]
        place.assert_sound()
