"""`publisher trace` lists the files of an image that a program opens, and publishes the list."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from publisher.browse.run import plan_run
from publisher.repository.directory.repository import DirectoryRepository
from publisher.runtimes.launch import bubblewrap
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from tests.command import Result, environment, publisher, succeed
from tests.components import require, require_user_namespaces
from tests.opened_files import opened_files
from tests.processes import command_lines, processes_naming, wait_until
from tests.schemas import layout_schema, output_schema, strict
from tests.traced_image import MAIN, UNUSED, libraries, write_traced_image

IMAGE = "local/traced:1"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("strace", "bwrap", "busybox")
    require_user_namespaces()
    folder = tmp_path_factory.mktemp("traced")
    source = write_traced_image(folder / "layout")
    succeed("ingest-image", source, "--name", "traced", "--repository", folder / "images")
    return folder / "images"


def trace(images: Path, *words: str | Path, env: dict[str, str] | None = None) -> Result:
    options = ("--repository", images, "--output", "json")
    result = publisher("trace", IMAGE, *options, *words, env=env)
    if result.code == 0:
        strict(output_schema("trace/1")).validate(result.json)
    return result


def paths(result: Result) -> list[str]:
    assert result.code == 0, result.err
    return [file["path"] for file in result.json["files"]]


def test_the_list_has_what_the_kernel_reports_as_opened(images: Path) -> None:
    result = trace(images)
    listed = paths(result)
    assert listed[0] == MAIN and len(set(listed)) == len(listed)
    repository = DirectoryRepository(RepositoryURL("dir", str(images)))
    start = plan_run(repository, IMAGE, ())
    with opened_files(Path(start.root)) as opened:
        done = subprocess.run(bubblewrap(start), capture_output=True, text=True)
    assert done.returncode == 0
    assert set(listed) == opened
    mapped = {line.split()[5] for line in done.stdout.splitlines() if " /" in line}
    assert len(mapped) == len(libraries()) + 1
    assert mapped <= {f"/{path}" for path in listed}
    assert not set(listed) & set(UNUSED)
    assert all(f["bytes"] == (Path(start.root) / f["path"]).stat().st_size
               for f in result.json["files"])  # fmt: skip

    record_path = images / result.json["path"]
    record = json.loads(record_path.read_bytes())
    strict(layout_schema("hot-files")).validate(record)
    assert [file["path"] for file in record["files"]] == listed
    assert record["command"] == [f"/{MAIN}"] and record["leftOut"] == 0
    assert record_path.stat().st_mode & 0o777 == 0o644
    assert "/usr/bin/cat" in result.err, "the output of the program"

    before = record_path.read_bytes()
    assert trace(images).json["status"] == "unchanged"
    assert trace(images, "--dry-run", "--", "/bin/true").json["status"] == "not-published"
    assert record_path.read_bytes() == before
    succeed("verify", "--deep", "--repository", images)
    succeed("gc", "--orphans", "--repository", images)
    assert record_path.exists()


def test_a_limit_leaves_out_what_has_no_space_and_the_list_is_replaced(images: Path) -> None:
    everything = trace(images).json
    limited = trace(images, "--limit", "3").json
    left_out = [file["path"] for file in limited["leftOut"]]
    assert limited["bytes"] <= 3_000_000 < everything["bytes"]
    assert (
        left_out
        and [f for f in everything["files"] if f["path"] not in left_out] == limited["files"]
    )
    record = json.loads((images / limited["path"]).read_bytes())
    assert record["leftOut"] == len(left_out)
    assert record["leftOutBytes"] == sum(file["bytes"] for file in limited["leftOut"])
    text = publisher("trace", IMAGE, "--limit", "3", "--dry-run", "--repository", images).out
    assert f"left out, because of --limit 3: {len(left_out)} file" in text
    assert left_out[0] in text
    short = trace(images, "--no-entrypoint", "--", "busybox", "true")
    assert paths(short) == ["bin/busybox"] and short.json["status"] == "published"


def test_a_program_that_does_not_end_is_ended_with_all_its_processes(images: Path) -> None:
    script = "cat /etc/tested; (while :; do sleep 9; done) & sleep 99"
    for seconds in ("1s", "10s", "100s"):  # a busy machine may take longer to start it
        result = trace(images, "--timeout", seconds, "--", "/bin/sh", "-c", script)
        if result.code == 0 and "etc/tested" in paths(result):
            break
    assert {"bin/busybox", "etc/tested"} == set(paths(result))
    assert not processes_naming(str(images))


def test_a_publisher_that_is_killed_leaves_no_process(images: Path, tmp_path: Path) -> None:
    program = f"sleep 1{os.getpid()}"
    words = ("trace", IMAGE, "--repository", str(images), "--", "/bin/sh", "-c", program)
    command = [sys.executable, "-m", "publisher", *words]
    started = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)

    def running() -> list[bytes]:
        every = command_lines().values()
        return [each for each in every if program.encode() in each and b"trace\0" not in each]

    try:
        wait_until(lambda: bool(running()))
    finally:
        started.kill()
        started.wait()
    wait_until(lambda: not running())


def test_a_failed_probe_is_reported_and_publishes_nothing(images: Path, tmp_path: Path) -> None:
    before = trace(images, "--", "/bin/true").json
    failed = trace(images, "--", "/bin/sh", "-c", "exit 7")
    assert failed.code == 1
    error = failed.json["error"]
    assert (error["kind"], error["data"]) == ("cannot-trace", {"image": IMAGE, "code": 7})
    assert "ended with exit code 7" in error["why"]
    assert "did not start" in trace(images, "--", "/no/such/program").json["error"]["why"]
    for missing, packages in (
        ("strace", "strace"),
        ("bwrap", "bubblewrap"),
        ("strace, bwrap", "strace bubblewrap"),
    ):
        folder = tmp_path / missing
        folder.mkdir()
        for name in {"strace", "bwrap"} - set(missing.split(", ")):
            (folder / name).symlink_to(f"/usr/bin/{name}")
        error = trace(images, env={"PATH": str(folder)}).json["error"]
        assert error["why"] == f"not installed: {missing}"
        assert error["hint"] == f"apt-get install {packages}"
    bundled = trace(images, "--bundle", "--", "/bin/true")
    assert bundled.code == 1 and "CVMFS only" in bundled.err
    assert trace(images, "--trigger", "bin/busybox").code == 2
    assert trace(images, "--remove", "--", "/bin/true").code == 2
    assert publisher("trace", "local/none:1", "--repository", images).code == 1
    assert trace(images, "--", "/bin/true").json == before | {"status": "unchanged"}


def test_a_list_is_removed_by_hand_repaired_and_collected_with_its_image(images: Path) -> None:
    path = images / trace(images, "--", "/bin/true").json["path"]
    at = ("--repository", images)
    removed = trace(images, "--remove")
    assert (removed.json["status"], path.exists()) == ("removed", False)
    assert trace(images, "--remove").json["status"] == "unchanged"

    for damage in (b"{", b"[]", b'{"version": 9}'):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damage)
        assert path.name in publisher("verify", *at).out
        succeed("verify", "--repair", "--replace-newer", *at)
        assert not path.exists()
    trace(images, "--", "/bin/true")
    record = json.loads(path.read_bytes())
    for key, value in (("imageId", f"sha256:{'0' * 64}"), ("trigger", "../../escape")):
        path.write_text(json.dumps(record | {key: value}))
        found = publisher("verify", *at)
        assert found.code == 1 and "trace the image again" in found.out
    succeed("verify", "--repair", *at)
    orphan = images / layout.hot_files(f"sha256:{'0' * 64}")
    orphan.parent.mkdir(parents=True)
    orphan.write_text(json.dumps(record))
    assert "orphan" in publisher("verify", "--output", "json", *at).out
    succeed("gc", "--orphans", *at)
    assert not orphan.exists()

    trace(images, "--", "/bin/true")
    succeed("remove", IMAGE, *at)
    assert path.exists()
    succeed("restore", IMAGE, *at)
    assert path.exists()
    succeed("remove", IMAGE, *at)
    succeed("gc", "--now", *at)
    assert not path.exists()
    assert not (images / layout.flat_image(record["imageId"])).exists()
    succeed("verify", *at)
