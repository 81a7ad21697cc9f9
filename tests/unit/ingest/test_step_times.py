"""The seconds of the steps of a run."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from publisher.ingest.report import Outcome, Report, Silent, Status, joined_reports
from publisher.ingest.run import ingest
from publisher.ingest.step_times import StepTimes
from publisher.repository.directory.repository import DirectoryRepository
from publisher.sources.open import Sources
from publisher.tree.layout import RepositoryURL
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.layer_builder import file, image, layer, write_layout


def test_the_steps_of_images_are_summed_by_kind() -> None:
    now = [0.0]
    steps = StepTimes(Silent(), lambda: now[0])
    steps.image_step("a", "resolving")
    now[0] = 1
    steps.image_step("b", "resolving")
    now[0] = 3
    steps.image_step("a", "fetching")
    now[0] = 10
    for name in ("a", "b", "never begun"):
        steps.image_done(Outcome(name, name, Status.UNCHANGED))
    assert steps.seconds == {"resolving": 3 + 9, "fetching": 7}
    one = Report((), 1.0, steps=steps.seconds)
    joined = joined_reports([one, Report((), 1.0, steps={"fetching": 1.0})], ())
    assert joined.steps == {"resolving": 12, "fetching": 8}


def test_the_report_of_a_run_has_the_seconds_of_its_steps(tmp_path: Path) -> None:
    reference = f"oci:{write_layout(image(layer(file('motd'))), tmp_path / 'layout', '1')}:1"
    url = RepositoryURL.parse(f"dir:{tmp_path}/images")
    requests = [Request(wish_for(reference, name="tools"))]
    repository = DirectoryRepository(url, writable=True, may_be_new=True)
    with closing(repository), Sources() as sources:
        report = ingest(requests, repository, sources)
    assert set(report.steps) == {"resolving", "fetching", "publishing"}
    assert all(seconds > 0 for seconds in report.steps.values())
