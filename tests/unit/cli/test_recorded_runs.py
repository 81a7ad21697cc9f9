"""Runs of all scheduled commands: in the state, in `publisher runs`, in messages and metrics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publisher.cli.runs import RECORDED
from tests.command import Result, run_here
from tests.layer_builder import file, image, layer, write_layout
from tests.receiver import NotificationReceiver
from tests.schemas import ROOT, output_schema, strict
from tests.unit.cli.test_metrics import metrics


class Jobs:
    """A repository with a published image, and the scheduled jobs with all their options."""

    def __init__(self, folder: Path, server: NotificationReceiver) -> None:
        self.server = server
        self.images = folder / "images"
        self.list = folder / "wishes.yaml"
        self.metrics = folder / "publisher.prom"
        (folder / "key").write_text(32 * "k")
        (folder / "notify.yaml").write_text(
            f"version: 1\nreceivers:\n  r: {{webhook: 'http://{server.host}/', "
            f"secret-file: {folder}/key}}\n"
        )
        self.env = {
            "PUBLISHER_REPOSITORY": str(self.images),
            "PUBLISHER_STATE": str(folder / "state"),
            "PUBLISHER_METRICS_FILE": str(self.metrics),
            "PUBLISHER_NOTIFY": str(folder / "notify.yaml"),
        }
        layout = write_layout(image(layer(file("motd"))), folder / "layout", "1")
        self.list.write_text(f"version: 2\nimages: ['oci:{layout}:1']\n")
        self.words: dict[str, tuple[str | Path, ...]] = {
            "ingest": ("ingest", self.list),
            "prune": ("prune", self.list),
            "gc": ("gc",),
            "verify": ("verify",),
            "doctor": ("doctor", "--repository", self.images),
        }

    def run(self, name: str) -> Result:
        self.server.received.clear()
        return run_here(*self.words[name])

    def events(self) -> list[tuple[str, str]]:
        messages = [each.json for each in self.server.received]
        return [(e["event"], e["subject"]) for m in messages for e in m["events"]]

    def runs(self, *words: str) -> list[dict[str, Any]]:
        result = run_here("runs", *words, "--output", "json")
        strict(output_schema("runs/1")).validate(result.json)
        found: list[dict[str, Any]] = result.json["runs"]
        return found

    def exit_code(self, name: str) -> float:
        of = str(self.list) if name in ("ingest", "prune") else ""
        key = f'publisher_last_exit_code{{command="{name}",list="{of}"}}'
        return metrics(self.metrics)[key]

    def last_run(self) -> dict[str, float]:
        found = metrics(self.metrics)
        return {key: found[key] for key in found if key.startswith("publisher_last_run_")}


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    with NotificationReceiver() as server:
        found = Jobs(tmp_path, server)
        for key, value in found.env.items():
            monkeypatch.setenv(key, value)
        yield found


def test_each_scheduled_command_records_notifies_and_measures_how_its_runs_end(jobs: Jobs) -> None:
    assert {*jobs.words, "ingest-image"} == set(RECORDED)
    for name in jobs.words:
        assert jobs.run(name).code == 0
        assert jobs.exit_code(name) == 0
    found = {run["command"]: run for run in jobs.runs()}
    counts = [found[name]["counts"] for name in ("ingest", "prune", "gc", "verify")]
    assert counts == [{"published": 1}, {}, {}, {}]
    assert found["doctor"]["counts"]["good"] > 0
    assert found["prune"]["lists"] == [str(jobs.list)] and found["gc"]["lists"] == []

    ended = jobs.last_run()
    aside = jobs.images.rename(jobs.images.with_name("aside"))
    jobs.images.write_text("not a directory")
    for name in jobs.words:
        code = 1 if name == "doctor" else 3  # a repository that is unusable is what it finds
        first = jobs.run(name)
        assert first.code == code
        event = ("found", str(jobs.images)) if name == "doctor" else ("failed", name)
        assert jobs.events() == [event]
        assert jobs.run(name).code == code
        assert jobs.events() == []
        assert jobs.exit_code(name) == code
        latest, before = jobs.runs(name)[:2]
        assert (latest["exitCode"], before["exitCode"]) == (code, code)
        assert bool(latest["error"]) == (name != "doctor")
    doctor = 'publisher_last_run_timestamp_seconds{command="doctor",list=""}'
    assert {**jobs.last_run(), doctor: 0} == {**ended, doctor: 0}
    text = run_here("runs", "--failed", "--limit", "3", "gc", "doctor").out
    assert [line.split()[1:3] for line in text.splitlines()] == [
        ["doctor", "1"],
        ["doctor", "1"],
        ["gc", "3"],
    ]
    assert f"cannot read repository {jobs.images}" in text.splitlines()[2]

    jobs.images.unlink()
    aside.rename(jobs.images)
    for name in jobs.words:
        assert jobs.run(name).code == 0
        assert jobs.events() == [("recovered", name)]
        assert jobs.exit_code(name) == 0
    for dry in ("gc", "prune"):
        assert run_here(*jobs.words[dry], "--dry-run").code == 0
    assert len(jobs.runs("--limit", "100")) == 4 * len(jobs.words)

    # The words and their order are those of the report of the run.
    listed = jobs.list.read_text()
    jobs.list.write_text(listed.replace("images: [", "images: ['oci:/missing:1', "))
    assert "1 unchanged, 1 failed in " in jobs.run("ingest").out
    assert "1 unchanged, 1 failed; of " in run_here("runs", "ingest", "--limit", "1").out
    assert run_here("remove", "local/layout:1").code == 0
    assert "; 1 still scheduled" in jobs.run("gc").out
    assert "1 still scheduled" in run_here("runs", "gc", "--limit", "1").out


def test_another_error_of_a_run_is_notified_and_status_shows_each_failed_command(
    jobs: Jobs,
) -> None:
    assert jobs.run("ingest").code == 0
    jobs.images.rename(jobs.images.with_name("aside"))
    jobs.images.write_text("not a directory")
    assert (jobs.run("gc").code, jobs.events()) == (3, [("failed", "gc")])
    jobs.images.unlink()
    jobs.images.with_name("aside").rename(jobs.images)
    schedule = jobs.images / ".metadata/remove-schedule.json"
    schedule.write_text("{")
    assert (jobs.run("gc").code, jobs.events()) == (3, [("failed", "gc")])
    assert (jobs.run("gc").code, jobs.events()) == (3, [])
    assert jobs.run("ingest").code == 1 or not jobs.server.received
    schedule.unlink()
    assert jobs.run("ingest").code == 0
    result = run_here("status")
    lines = [line for line in result.err.splitlines() if "last run" in line]
    assert [line.split(", ")[0] for line in lines] == [
        "publisher: last run: ingest",
        "publisher: last run: gc",
    ]
    assert "remove-schedule" in lines[1]
    value = run_here("status", "--output", "json").json
    assert [run["exitCode"] for run in value["lastRuns"]] == [0, 3]


def test_a_machine_without_recorded_runs_is_named_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBLISHER_STATE", str(tmp_path))
    result = run_here("runs", "--repository", tmp_path / "images")
    assert (result.code, result.out) == (0, "")
    assert "this machine has no state of a run" in result.err


def test_checks_of_an_ordinary_user_begin_no_state_beside_that_of_the_jobs(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    assert jobs.run("ingest").code == 0
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/") and path.stat().st_mode & 0o5 != 0o5:
            path.chmod(path.stat().st_mode | 0o55)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    monkeypatch.setenv("HOME", str(home))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            for name in jobs.env:
                os.environ.pop(name)
            results = []
            for state in (None, jobs.env["PUBLISHER_STATE"]):  # as the page for administrators has
                os.environ.pop("PUBLISHER_STATE", None)
                if state:
                    os.environ["PUBLISHER_STATE"] = state
                results += [
                    run_here(name, "--repository", jobs.images) for name in ("verify", "doctor")
                ]
            good = all("state" not in each.err for each in results)
            code = 0 if good and not list(home.rglob("*")) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [run["command"] for run in jobs.runs()] == ["ingest"]


def test_the_documented_commands_are_those_whose_runs_are_recorded() -> None:
    page = (ROOT / "docs/administration.md").read_text()
    [line] = [each for each in page.splitlines() if each.startswith("**Every run of ")]
    names = line.split("**")[1].removeprefix("Every run of ").removesuffix(" is recorded")
    assert sorted(names.replace(" and ", ", ").replace("`", "").split(", ")) == sorted(RECORDED)
