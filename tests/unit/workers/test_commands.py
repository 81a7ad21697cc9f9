"""Commands publish the same with worker processes as without them, in every kind of repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from publisher.cli.repositories import open_repository
from publisher.repository.cvmfs.repository import CvmfsRepository
from publisher.tree import layout
from publisher.workers.pool import Workers
from tests.any_repository import KINDS, environment_of, make_repository
from tests.command import publisher, succeed
from tests.layer_builder import (
    directory,
    file,
    hardlink,
    image,
    layer,
    opaque,
    whiteout,
    write_layout,
)
from tests.transactions.scenarios import State, differences, state_of

BASE = layer(directory("etc"), file("etc/motd", b"hello"), file("gone"))
TOP = layer(file("late/f", b"x" * 5000), directory("late"), whiteout("gone"), opaque("etc"))
OWN = layer(hardlink("again", "late/f"), file("own", b"own"))


@pytest.mark.parametrize("kind", KINDS)
def test_commands_publish_the_same_with_workers_and_without(kind: str, tmp_path: Path) -> None:
    write_layout(image(BASE, TOP, OWN), tmp_path / "layout", "1")
    states: list[State] = []
    found: list[Any] = []
    for count in ("0", "2"):
        folder = tmp_path / count
        folder.mkdir()
        place = make_repository(kind, folder)
        env = {**place.env, "PUBLISHER_WORKERS": count}
        words = (f"oci:{tmp_path}/layout:1", "--name", "tool", "--repository", place.url)
        succeed("ingest-image", *words, env=env)
        succeed("verify", "--deep", "--repository", place.url, env=env)
        states.append(state_of(place.root))
        (place.root / layout.layer_tree(TOP.digest) / "late/f").write_bytes(b"y" * 5000)
        options = ("--deep", "--repository", place.url, "--output", "json")
        damaged = publisher("verify", *options, env=env)
        assert damaged.code == 1, damaged
        found.append(damaged.json)
    assert found[0] == found[1]
    assert any("late/f" in each["what"] for each in found[0]["findings"])
    assert not differences(*states)
    assert any(path.endswith("late/f") for path in states[0])
    if kind == "cvmfs":
        with environment_of(place), Workers(2) as workers:
            opened = open_repository(place.url, writable=True, workers=workers)
            assert isinstance(opened, CvmfsRepository)
            assert opened._execution.read == workers.read_contents
            opened.close()
