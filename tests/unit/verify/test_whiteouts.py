"""Whiteouts that a layer's tree leaves out on purpose are not called missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.tree import layout
from tests.command import run_here
from tests.layer_builder import (
    Layer,
    character_device,
    directory,
    file,
    image,
    layer,
    opaque,
    whiteout,
    write_layout,
)

BASE = layer(file("gone", b"1"), file("app/old", b"old"), file("app/sub/old", b"old"), file("dev"))

LAYERS = {
    "below an opaque directory": layer(
        whiteout("gone"), directory("app"), opaque("app"), whiteout("app/old"), file("app/new")
    ),
    "deep below an opaque directory": layer(
        whiteout("gone"), directory("app"), opaque("app"), whiteout("app/sub/old"), file("app/new")
    ),
    "below an opaque root": layer(opaque(""), whiteout("gone"), file("app/new")),
    "in place of a dropped device": layer(whiteout("gone"), character_device("null")),
    "in place of a dropped device that hides a file": layer(
        whiteout("gone"), character_device("dev")
    ),
}


@pytest.mark.parametrize("upper", LAYERS.values(), ids=LAYERS.keys())
def test_a_whiteout_that_hides_nothing_more_is_not_missing(tmp_path: Path, upper: Layer) -> None:
    write_layout(image(BASE, upper), tmp_path / "layout")
    place = ("--repository", tmp_path / "images")
    assert run_here("ingest-image", f"oci:{tmp_path}/layout:latest", *place).code == 0
    assert run_here("verify", "--deep", *place).out.endswith("0 errors, 0 warnings, 0 notes\n")


def test_a_whiteout_that_was_removed_is_missing(tmp_path: Path) -> None:
    upper = layer(whiteout("gone"), whiteout("dev"))
    write_layout(image(BASE, upper), tmp_path / "layout")
    place = ("--repository", tmp_path / "images")
    assert run_here("ingest-image", f"oci:{tmp_path}/layout:latest", *place).code == 0
    (tmp_path / "images" / layout.layer_tree(upper.digest) / "gone").unlink()
    report = run_here("verify", "--deep", *place)
    assert (report.code, "1 whiteouts are missing" in report.out) == (1, True)
    assert run_here("verify", "--deep", "--refetch", *place).code == 0
