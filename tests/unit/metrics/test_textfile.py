"""The file with metrics: what is kept, what is replaced, and what is refused."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from publisher.metrics import families, textfile
from publisher.metrics.families import FAMILIES, Update, value
from publisher.metrics.textfile import UnusableMetricsFile, update_file
from tests.components import require

HOSTILE = 'a"b\\c\nd\x1b[2J\udcff{}=,\u202e'


def samples(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def test_a_command_replaces_its_own_values_and_keeps_those_of_others(tmp_path: Path) -> None:
    path = tmp_path / "publisher.prom"
    update_file(
        path,
        [
            Update(families.WISHES, ("dir:/a", "/one"), {("current",): 3, ("failing",): 1}),
            Update(families.WISHES, ("dir:/a", "/two"), {("current",): 5}),
            value(families.FETCHED, ("dir:/a", "/one"), 100),
            value(families.REVISION, ("cvmfs:a",), 7),
        ],
    )
    assert path.stat().st_mode & 0o777 == 0o644
    update_file(
        path,
        [
            Update(families.WISHES, ("dir:/a", "/one"), {("current",): 4}),
            value(families.FETCHED, ("dir:/a", "/one"), 11),
            value(families.REVISION, ("cvmfs:a",), None),
        ],
    )
    assert samples(path) == [
        'publisher_fetched_bytes_total{list="/one",repository="dir:/a"} 111.0',
        'publisher_wishes{list="/one",repository="dir:/a",state="current"} 4.0',
        'publisher_wishes{list="/two",repository="dir:/a",state="current"} 5.0',
    ]
    assert os.listdir(tmp_path) == [path.name]


def test_prometheus_accepts_every_metric_and_any_text_in_labels(tmp_path: Path) -> None:
    require("promtool")
    path = tmp_path / "publisher.prom"
    updates = [
        Update(f, tuple(HOSTILE for _ in f.scope), {tuple(HOSTILE for _ in f.labels): 1.5})
        for f in FAMILIES
    ]
    for _ in range(2):  # what is read again has the same labels
        update_file(path, updates)
    assert len(samples(path)) == len(FAMILIES)
    with path.open("rb") as file:
        checked = subprocess.run(["promtool", "check", "metrics"], stdin=file, capture_output=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


@pytest.mark.parametrize(
    "damaged",
    [
        b"\xff\xfe\x00",
        b"publisher_wishes{list=",
        b'publisher_wishes{list="/l",repository="r",state="current",more="x"} 4\nother_metric 1\n',
        b'publisher_wishes{list="/l",repository="r",state="current"} NaN\n',
        b"# TYPE publisher_wishes gauge\n" * 2 + b"publisher_wishes +Inf\n",
    ],
)
def test_values_that_the_publisher_cannot_have_written_are_dropped(
    tmp_path: Path, damaged: bytes
) -> None:
    path = tmp_path / "publisher.prom"
    path.write_bytes(damaged)
    update_file(path, [value(families.REVISION, ("cvmfs:a",), 7)])
    assert samples(path) == ['publisher_repository_revision{repository="cvmfs:a"} 7.0']


def test_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "publisher.prom"
    path.mkdir()
    with pytest.raises(UnusableMetricsFile, match=r"cannot write the metrics to .*publisher\.prom"):
        update_file(path, [value(families.REVISION, ("cvmfs:a",), 7)])
    with pytest.raises(UnusableMetricsFile, match="No such file or directory"):
        update_file(tmp_path / "missing" / "publisher.prom", [])
    os.mkfifo(tmp_path / "fifo.prom")
    update_file(tmp_path / "fifo.prom", [value(families.REVISION, ("cvmfs:a",), 7)])
    assert (tmp_path / "fifo.prom").is_file()


def test_a_lock_that_another_process_keeps_does_not_prevent_the_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(textfile, "_LOCK_SECONDS", 0.05)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        update_file(tmp_path / "publisher.prom", [value(families.REVISION, ("cvmfs:a",), 7)])
    finally:
        os.close(descriptor)
    assert (tmp_path / "publisher.prom").exists()
