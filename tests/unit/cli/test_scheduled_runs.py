"""`publisher ingest` as a job: new failures, selections, runs at the same time, faults."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from publisher.state.database import state_file
from publisher.state.store import State, open_state
from tests.command import Result, command, environment, publisher
from tests.registry import OwnRegistry, wait_for
from tests.registry_faults import held, status
from tests.registry_images import sample_image
from tests.schemas import output_schema, strict


class Job:
    """A wish list, a repository and the state of its runs."""

    def __init__(self, directory: Path, registry: OwnRegistry) -> None:
        self.registry = registry
        self.list = directory / "wishes.yaml"
        self.tree = directory / "images"
        self.directory = directory / "state"
        self.env = {"PUBLISHER_STATE": str(self.directory), "PUBLISHER_REPOSITORY": str(self.tree)}

    def write(self, *wishes: str) -> None:
        lines = "".join(f"- {wish.replace('HOST', self.registry.url)}\n" for wish in wishes)
        self.list.write_text(f"version: 2\nimages:\n{lines}")

    def run(self, *options: str) -> Result:
        self.registry.requests.clear()
        return publisher("ingest", self.list, "--no-progress", *options, env=self.env)

    def state(self) -> State:
        return open_state(self.directory, str(self.tree), writable=False, note=pytest.fail)


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    with OwnRegistry() as registry:
        registry.add("good", "1", sample_image(1000))
        yield Job(tmp_path, registry)


def test_only_failures_that_are_new_are_printed_and_end_a_run_with_1(job: Job) -> None:
    job.write("HOST/good:1", "HOST/dead:1", "HOST/good:1", "'A B'", "{image: HOST/good:1, note: x}")
    first = job.run("--new-failures")
    assert first.code == 1
    assert [line.split(": ")[2] for line in first.err.splitlines()] == [
        f"{job.registry.host}/dead:1",
        f"{job.registry.host}/good:1",
        "A B",
    ]
    for quiet in ((), ("--quiet",)):
        again = job.run("--new-failures", *quiet)
        assert (again.code, again.err) == (0, "")
        assert again.out.startswith("1 unchanged, 1 waiting, 2 failed in ") != bool(quiet)
        assert len(again.out.splitlines()) == (not quiet)
    assert not job.registry.seen(path="dead")

    loud = job.run("--output", "json")
    strict(output_schema("ingest/1")).validate(loud.json)
    dead = loud.json["outcomes"][1]
    assert (loud.code, dead["status"], dead["cause"], dead["news"]) == (
        1,
        "waiting",
        "image-missing",
        None,
    )
    assert f"next try at {dead['nextTry']}" in job.run().err

    job.registry.misbehave(status(403), path="dead")
    other = job.run("--new-failures", "--retry-failed")
    assert (other.code, len(other.err.splitlines())) == (1, 1)
    job.write("HOST/good:1")
    assert job.run("--new-failures").code == 0
    with job.state() as state:
        assert [tries.name for tries in state.wishes()] == [f"{job.registry.host}/good:1"]
        runs = state.runs()
    assert [run.exit_code for run in reversed(runs)] == [1, 0, 0, 1, 1, 1, 0]
    assert runs[-2].counts == {"unchanged": 1, "waiting": 1, "failed": 2}
    assert {run.lists for run in runs} == {(str(job.list),)}


def test_runs_that_fail_as_a_whole_are_recorded_as_well(job: Job) -> None:
    job.write("HOST/good:1")
    text = job.list.read_text()
    job.list.write_text("images: [")
    assert job.run("--new-failures").code == 2
    job.list.unlink()
    assert job.run("--new-failures").code == 2
    job.list.write_text(text)
    job.tree.write_text("not a directory")
    assert job.run("--new-failures").code == 3
    job.tree.unlink()
    assert job.run("--new-failures").code == 0
    assert publisher("ingest-image", f"{job.registry.url}/good:1", env=job.env).code == 0
    job.list.write_text(f"repository: dir:{job.tree}\n{text}")
    del job.env["PUBLISHER_REPOSITORY"]
    assert job.run("--policy", "missing").code == 2
    with job.state() as state:
        runs = state.runs()
    assert [run.exit_code for run in reversed(runs)] == [2, 2, 3, 0, 0, 2]
    assert [run.command for run in runs[1:3]] == ["ingest-image", "ingest"]
    assert "cannot read wish list" in runs[4].error and not runs[2].error
    assert "missing" in runs[0].error


def test_a_list_that_cannot_be_read_does_not_stop_the_others(job: Job, tmp_path: Path) -> None:
    job.registry.add("other", "1", sample_image(1000, seed=1))
    job.write("HOST/good:1")
    other = tmp_path / "other.yaml"
    text = job.list.read_text().replace("good", "other")
    other.write_text(text)
    metrics = tmp_path / "publisher.prom"
    assert job.run(str(other)).code == 0
    for broken in ("images: [", None):
        other.unlink()
        if broken:
            other.write_text(broken)
        job.registry.add("good", "1", sample_image(1000, seed=2 if broken else 3))
        result = job.run(str(other), "--new-failures", "--metrics-file", str(metrics))
        assert result.code == 2
        assert "updated: " in result.out and "1 updated, 1 failed in" in result.out
        assert f"failed: {other}: cannot " in result.err and len(result.err.splitlines()) == 1
        mentioned = [x for x in metrics.read_text().splitlines() if f'list="{other}"' in x]
        assert mentioned and all(x.startswith("publisher_last_exit_code") for x in mentioned)
        assert all(x.endswith(" 2.0") for x in mentioned)
    silent = job.run(str(other), "--new-failures", "--quiet")
    assert (silent.code, silent.out + silent.err) == (2, "")
    prune = publisher("prune", job.list, other, env=job.env)
    assert (prune.code, "nothing was scheduled" in prune.err) == (2, True)
    assert job.registry.host + "/other:1" not in publisher("schedule", env=job.env).out
    shown = publisher("status", "--failing", env=job.env)
    assert (shown.code, shown.out.startswith(f"{other}  failing since ")) == (0, True)
    assert "tried 3 times); next try: with the next run" in shown.out
    as_json = job.run(str(other), "--output", "json")
    strict(output_schema("ingest/1")).validate(as_json.json)
    found = [(each["name"], each["status"]) for each in as_json.json["outcomes"]]
    assert found == [(f"{job.registry.host}/good:1", "unchanged"), (str(other), "failed")]
    other.write_text(text)
    assert job.run(str(other), "--new-failures").code == 0
    with job.state() as state:
        assert [tries.is_failing for tries in state.wishes()] == [False, False]
    other.unlink()
    job.list.unlink()
    none = job.run(str(other))
    assert (none.code, none.out, str(job.list) in none.err) == (2, "", True)
    assert f"publisher: cannot read wish list {other}" in none.err


def test_a_wish_with_several_errors_counts_one_try_in_each_run(job: Job) -> None:
    job.write("{image: HOST/good:1, outputs: [none], grace: never}")
    for tries in (1, 2):
        result = job.run()
        assert (result.code, len(result.err.splitlines())) == (1, 2)
        with job.state() as state:
            assert [each.tries for each in state.wishes()] == [tries]


def test_only_what_matches_a_pattern_is_worked_on(job: Job) -> None:
    job.registry.add("some", "1.1", sample_image(1000, seed=1))
    job.registry.add("some", "1.2", sample_image(1000, seed=2))
    some = "{image: HOST/some, tags: ['1.*']}"
    job.write("HOST/good:1", "HOST/dead:1", some, "{image: HOST/none, tags: ['9']}", "'A B'")
    one = job.run("--only", "*/some:*.2")
    assert one.code == 0 and "1 published in" in one.out and "some:1.2" in one.out
    assert not job.registry.seen(path="good|dead|none")
    assert job.run("--only", "*/some").out.startswith(f"published: {job.registry.host}/some:1.1")
    absent = job.run("--only", "*/none:9")
    assert (absent.code, "none:9: cannot list the tags" in absent.err) == (1, True)
    two = job.run("--only", "*good*", "--only", "A ?")
    assert (two.code, "1 published, 1 failed in" in two.out) == (1, True)
    with job.state() as state:
        names = [tries.name.removeprefix(f"{job.registry.host}/") for tries in state.wishes()]
    assert names == ["good:1", "some:1.1", "some:1.2", "A B", f"{job.registry.url}/none:9"]
    unknown = job.run("--only", "unknown*")
    assert unknown.code == 2 and not job.registry.requests
    assert "no wish, and no name of an image, matches unknown*" in unknown.err


def test_only_changed_wishes_are_worked_on(job: Job) -> None:
    some = "{image: HOST/good, tags: ['1*']}"
    job.write("HOST/dead:1", some)
    assert "1 published, 1 failed in" in job.run("--changed").out
    idle = job.run("--changed")
    assert (idle.code, idle.out.split(" in ")[0]) == (0, "nothing selected")
    assert not job.registry.requests
    job.write("HOST/dead:1", "HOST/dead:2", "{image: HOST/good, tags: ['1*'], owner: astro}")
    assert "1 recorded, 1 failed in" in job.run("--changed").out
    assert not job.registry.seen(path="dead/manifests/1")
    with job.state() as state:
        assert len(state.wishes()) == 3
    job.write("HOST/dead:1", some)
    assert "1 recorded in" in job.run("--changed").out
    job.write("HOST/dead:1")
    assert "nothing selected" in job.run("--changed").out
    job.write("HOST/dead:1", some)
    assert "1 unchanged in" in job.run("--changed").out


def test_a_run_that_finds_another_at_work_on_its_list_ends_with_5(job: Job, tmp_path: Path) -> None:
    job.write("HOST/good:1")
    other_list = tmp_path / "other.yaml"
    other_list.write_text(job.list.read_text())
    go_on = threading.Event()
    job.registry.misbehave(held(go_on), path="manifests", times=1)
    with subprocess.Popen(
        command("ingest", job.list),
        env={**environment(), **job.env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as first:
        try:
            wait_for(lambda: job.registry.count() > 0, 60)
            second = job.run()
            assert second.code == 5
            assert f"process {first.pid} of this machine" in second.err
            silent = job.run("--quiet", "--new-failures")
            assert (silent.code, silent.out + silent.err) == (5, "")
            other = publisher("ingest", other_list, env=job.env)
            assert (other.code, "1 published" in other.out) == (0, True)
        finally:
            first.kill()
            go_on.set()
    assert job.run().code == 0
    with job.state() as state:
        assert [run.exit_code for run in reversed(state.runs())] == [5, 5, 0, 0]
        assert len(state.wishes()) == 2


def unwritable(job: Job) -> None:
    job.directory.write_text("not a directory")


def full(job: Job) -> None:
    job.directory.symlink_to("/dev/full")


def damaged(job: Job) -> None:
    job.directory.mkdir()
    state_file(job.directory, f"dir:{job.tree}").write_bytes(b"SQLite format 3\0" + b"x" * 9000)


def a_directory(job: Job) -> None:
    state_file(job.directory, f"dir:{job.tree}").mkdir(parents=True)


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (unwritable, "cannot keep the state of"),
        (full, "cannot keep the state of"),
        (damaged, "begins anew"),
        (a_directory, "begins anew"),
    ],
)
def test_a_state_that_cannot_be_used_is_noted_and_does_not_change_the_result(
    job: Job, damage: Callable[[Job], None], note: str
) -> None:
    job.write("HOST/good:1", "HOST/dead:1")
    damage(job)
    result = job.run("--new-failures")
    assert (result.code, result.out.startswith("published: ")) == (1, True)
    assert "1 published, 1 failed in" in result.out
    assert note in result.err and "dead:1: cannot fetch" in result.err
    assert "unexpected" not in result.err
    assert (job.tree / job.registry.host / "good:1").exists()


def test_a_run_that_is_killed_leaves_a_state_that_does_not_claim_more_than_is_published(
    job: Job,
) -> None:
    for number in range(8):
        job.registry.add("many", str(number), sample_image(1000, seed=number))
    job.write("HOST/dead:1", *(f"HOST/many:{number}" for number in range(8)))
    program = (
        "import publisher.state.store as s; s._FLUSH_SECONDS = 0; "
        "from publisher.cli import main; main.main()"
    )
    words = [sys.executable, "-c", program, "ingest", str(job.list), "--retry-failed"]
    known = []
    for requests in (12, 20, 28):

        def is_due(requests: int = requests) -> bool:
            return job.registry.count() >= requests or process.poll() is not None

        job.registry.requests.clear()
        with subprocess.Popen(
            words, env={**environment(), **job.env}, stderr=subprocess.DEVNULL
        ) as process:
            wait_for(is_due, 60)
            process.kill()
        # As the next run opens it: what a kill left of a transaction is undone.
        with open_state(job.directory, str(job.tree), writable=True) as state:
            done = [tries for tries in state.wishes() if tries.last_success is not None]
        assert all((job.tree / tries.name).exists() for tries in done)
        known.append(len(done))
    assert known == sorted(known)
    assert known[-1] > 0
    assert job.run("--quiet", "--new-failures").code == 1
    with job.state() as state:
        assert len([tries for tries in state.wishes() if tries.last_success]) == 8
