"""`--metrics-file`: what the commands write at the end of a run, and that it changes no result."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import publisher
from tests.components import require, require_mounts
from tests.layer_builder import file, image, layer, write_layout


@pytest.fixture
def wishes(tmp_path: Path) -> Path:
    layout = write_layout(image(layer(file("motd", b"hello"))), tmp_path / "layout", "1")
    path = tmp_path / "wishes.yaml"
    path.write_text(
        f"version: 2\nrepository: dir:{tmp_path}/images\n"
        f"images: ['oci:{layout}:1', 'oci:{layout}:2', {{image: 'A B', outputs: [none]}}]\n"
    )
    return path


def metrics(path: Path) -> dict[str, float]:
    """The values by name and labels, without the label of the repository."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    pairs = (line.rsplit(" ", 1) for line in lines)
    values = {
        re.sub(r'repository="[^"]*",|,?repository="[^"]*"', "", key): float(number)
        for key, number in pairs
    }
    assert len(values) == len(lines)
    return values


def test_all_jobs_of_a_repository_share_one_file(tmp_path: Path, wishes: Path) -> None:
    require("promtool")
    path = tmp_path / "publisher.prom"
    option, repository = ("--metrics-file", path), ("--repository", tmp_path / "images")
    named = f'list="{wishes}"'
    result = publisher("ingest", wishes, *option)
    assert result.code == 1 and "published: local/layout:1" in result.out
    found = metrics(path)
    assert found[f'publisher_wishes{{{named},state="current"}}'] == 1
    assert found[f'publisher_wishes{{{named},state="failing"}}'] == 2
    assert found[f'publisher_failing_images{{cause="image-missing",{named}}}'] == 1
    assert found[f'publisher_failing_images{{cause="wish-list",{named}}}'] == 1
    since = f"publisher_oldest_failure_timestamp_seconds{{{named}}}"
    assert (
        abs(
            found[since]
            - found[f'publisher_last_run_timestamp_seconds{{command="ingest",{named}}}']
        )
        < 600
    )
    assert found["publisher_undelivered_notifications{}"] == 0
    assert found[f"publisher_fetched_bytes_total{{{named}}}"] > 0
    assert found['publisher_run_step_seconds{command="ingest",step="fetching"}'] > 0
    ran = f'publisher_last_run_timestamp_seconds{{command="ingest",{named}}}'
    good = f'publisher_last_success_timestamp_seconds{{command="ingest",{named}}}'
    assert found[ran] > 0 and good not in found

    wishes.write_text(re.sub(", 'oci.*]", "]", wishes.read_text()))
    for words in (
        ("ingest", wishes, "--quiet"),
        ("prune", wishes),
        ("gc", "--repository", os.path.relpath(tmp_path / "images")),
        ("verify", *repository),
    ):
        assert publisher(*words, *option).code == 0
    again = metrics(path)
    assert again[good] == again[ran] > found[ran]
    assert since not in again and not [key for key in again if "publisher_failing" in key]
    assert (
        again[f"publisher_fetched_bytes_total{{{named}}}"]
        == (found[f"publisher_fetched_bytes_total{{{named}}}"])
    )
    for command, each in (("prune", named), ("gc", 'list=""'), ("verify", 'list=""')):
        assert again[f'publisher_last_success_timestamp_seconds{{command="{command}",{each}}}'] > 0
        assert again[f'publisher_run_seconds{{command="{command}"}}'] > 0
    assert again['publisher_findings{of="records",severity="error"}'] == 0
    assert again["publisher_repository_stored_bytes{}"] == 5
    assert again["publisher_collected_images_total{}"] == 0
    with path.open("rb") as written:
        checked = subprocess.run(["promtool", "check", "metrics"], stdin=written)
    assert checked.returncode == 0
    assert set(re.findall('repository="(.*?)"', path.read_text())) == {f"dir:{tmp_path}/images"}


def test_damaged_contents_stay_in_the_metrics_until_they_are_read_again(
    tmp_path: Path, wishes: Path
) -> None:
    assert publisher("ingest", wishes).code == 1
    path, images = tmp_path / "publisher.prom", tmp_path / "images"
    damaged = images / "local/layout:1/motd"
    damaged.write_bytes(b"hell!")
    of_contents = 'publisher_findings{of="contents",severity="error"}'
    of_records = 'publisher_findings{of="records",severity="error"}'
    for options, code, expected in (
        ((), 0, {of_records: 0}),
        (("--deep",), 1, {of_records: 0, of_contents: 1}),
        ((), 0, {of_records: 0, of_contents: 1}),
        (("--repair",), 0, {of_records: 0, of_contents: 1}),
        (("--deep", "--repair", "--refetch"), 0, {of_records: 0, of_contents: 0}),
    ):
        words = ("verify", *options, "--repository", images, "--metrics-file", path)
        assert publisher(*words).code == code
        found = {k: n for k, n in metrics(path).items() if re.match(".*findings.*error", k)}
        assert found == expected


def test_a_run_that_cannot_use_the_repository_replaces_only_its_exit_code(
    tmp_path: Path, wishes: Path
) -> None:
    path = tmp_path / "publisher.prom"
    option = ("--metrics-file", path)
    assert publisher("ingest", wishes, *option).code == 1
    before = metrics(path)
    (tmp_path / "images").rename(tmp_path / "aside")
    (tmp_path / "images").write_text("this is not a directory")
    assert publisher("ingest", wishes, *option).code == 3
    code = f'publisher_last_exit_code{{command="ingest",list="{wishes}"}}'
    assert before[code] == 1
    assert metrics(path) == before | {code: 3}
    assert publisher("gc", "--dry-run", *option).code == 2
    assert metrics(path) == before | {code: 3}


def test_a_full_disk_does_not_change_the_result_of_a_run(tmp_path: Path, wishes: Path) -> None:
    require_mounts()
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", small], check=True)
    try:
        (small / "publisher.prom").write_text("earlier\n")
        (small / "filling").write_bytes(bytes(4096))
        result = publisher("ingest", wishes, "--metrics-file", small / "publisher.prom")
        assert result.code == 1 and "published: local/layout:1" in result.out
        assert f"cannot write the metrics to {small}/publisher.prom" in result.err
        assert (small / "publisher.prom").read_text() == "earlier\n"
        assert sorted(os.listdir(small)) == ["filling", "publisher.prom"]
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_name_that_the_node_exporter_ignores_is_a_usage_error(wishes: Path) -> None:
    result = publisher("ingest", wishes, "--metrics-file", "/tmp/publisher.txt")
    assert result.code == 2 and "only files with the ending .prom" in result.err


def test_commands_do_not_import_what_only_the_metrics_of_a_run_need() -> None:
    code = (
        "import sys, publisher.cli.ingest, publisher.cli.gc\n"
        "print(*{'prometheus_client', 'publisher.verify.run', 'publisher.removal.prune'}"
        " & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
