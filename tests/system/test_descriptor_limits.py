"""Open descriptors do not grow with the number of layers, and jobs adapt to their limit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from publisher.tree import layout
from tests.command import command, environment
from tests.layer_builder import directory, file, hardlink, image, layer, write_layout


@pytest.mark.parametrize(
    ("limit", "layers", "jobs"), [(256, 127, 4), (256, 127, 64), (128, 300, 4), (1024, 1200, 4)]
)
def test_images_of_many_layers_are_published_under_a_low_limit_of_open_files(
    tmp_path: Path, limit: int, layers: int, jobs: int
) -> None:
    base = layer(directory("deep"), *(file(f"base{n}", b"base") for n in range(20)))
    built = [
        layer(directory(f"deep/{n}"), file(f"deep/{n}/file", b"%d" % n), hardlink(f"l{n}", "base0"))
        for n in range(layers - 1)
    ]
    images = [image(base, *built), image(base, *built[: layers // 2]), image(base, *built[1:])]
    if layers > 200:
        images = images[:1]
    for number, each in enumerate(images):
        write_layout(each, tmp_path / "layout", f"t{number}")
    requested = [{"image": f"oci:{tmp_path}/layout:t{number}"} for number in range(len(images))]
    wishes = tmp_path / "wishes.yaml"
    wishes.write_text(json.dumps({"version": 2, "images": requested}))
    root = tmp_path / "images"
    words = command("ingest", wishes, "--jobs", str(jobs), "--quiet", "--repository", str(root))
    ended = subprocess.run(
        ["bash", "-c", f'ulimit -n {limit}; exec "$@"', "bash", *words],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    for each in images:
        assert (root / layout.flat_image(each.image_id) / "deep/1/file").read_bytes() == b"1"


_PRINT = """
import resource
from publisher.repository.descriptors import jobs_within_limit, raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
before = jobs_within_limit(64)
raise_limit()
print(before, jobs_within_limit(64), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (64, 64, "1 1 64 64"),
        (256, 256, "3 3 256 256"),
        (256, 20000, "3 64 20000 20000"),
        (1024, 1024, "5 5 1024 1024"),
    ],
)
def test_jobs_are_as_many_as_the_limit_of_open_files_allows(
    soft: int, hard: int, expected: str
) -> None:
    code = _PRINT.format(soft=soft, hard=hard)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == expected
