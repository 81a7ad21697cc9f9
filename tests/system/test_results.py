"""The measurements of docs/results.md, on three tiny images."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bench.results.build import write_archive
from bench.results.report import report
from bench.results.state import NotEnoughSpace, State
from tests.components import require, require_root, run

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.system


def measure(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bench.results", "--quick", "--folder", folder, *words],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_all_is_measured_once_and_becomes_a_page(tmp_path: Path) -> None:
    require("docker-registry", "skopeo", "mksquashfs", "bwrap", "strace", "git", "du")
    folder = tmp_path / "work"
    measure(folder, "--only", "space", "catalogs")
    state = State(folder)
    images = state.load("space")["images"]
    assert [image["name"] for image in images] == ["made:1", "made:2", "made:3"]
    assert [image["newLayerBytes"] for image in images[1:]] == [9000, 9000]
    assert images[0]["flatBytes"] > images[0]["squashfs"] > 0
    ways = state.load("catalogs")["ways"]
    trees = ways["one for each layer and flat image"]["catalogs"]
    assert (trees, ways["no nested catalogs of CVMFS"]["catalogs"]) == (9, 1)

    printed = measure(folder)
    assert "space: measured already" in printed and "costs: begins" in printed
    assert set(state.documents()) == {
        *("catalogs", "complexity", "costs", "publication", "shares", "space")
    }
    assert [share["files"] for share in state.load("shares")] == [2, 2, 2]
    assert state.load("costs")["costs"]["moved tag"]["wall"] > 0
    page, figures = report(state.documents())
    for section in ("The images", "Space", "What a start reads", "What commands cost"):
        assert f"\n## {section}\n" in page
    assert "How costs grow" not in page
    assert {f"({'figures/' + name})" for name in figures} <= set(_linked(page))


def _linked(page: str) -> list[str]:
    return [part.partition(")")[0].join("()") for part in page.split("](")[1:]]


def test_without_enough_space_nothing_begins(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughSpace):
        State(tmp_path).check_space(10**9)


def test_what_a_step_removes_is_a_whiteout_in_its_layer(tmp_path: Path) -> None:
    require_root()
    require("mount", "unshare")
    for name in ("lower/gone", "lower/emptied", "upper", "work", "root"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lower/emptied/old").touch()
    script = (
        "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work root && cd root"
        " && rmdir gone && rm -r emptied && mkdir emptied && echo 1 > emptied/new && ln -s new link"
    )
    run("unshare", "--mount", "sh", "-ec", script, cwd=tmp_path)
    write_archive(tmp_path / "upper", tmp_path / "layer.tar")
    with tarfile.open(tmp_path / "layer.tar") as archive:
        names = sorted(archive.getnames())
    assert names == [".wh.gone", "emptied", "emptied/.wh..wh..opq", "emptied/new", "link"]
