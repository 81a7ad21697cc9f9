"""What `stats` and `du` announce is what a collection then frees, in each kind of repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from publisher.tree import layout
from tests.any_repository import KINDS, make_repository
from tests.command import Result, command, run_here
from tests.components import require
from tests.layer_builder import file, image, layer, write_layout
from tests.layout_example import publish_example
from tests.terminal import Terminal

TOOL, MULTI = "registry.example.org/team/tool:1.0", "quay.io/team/multi:2"


def size_of_files(*directories: Path) -> int:
    """The bytes of distinct files."""
    found = {}
    for top in directories:
        for path in top.rglob("*"):
            if path.is_file() and not path.is_symlink():
                found[path.stat().st_ino] = path.stat().st_size
    return sum(found.values())


def of_layers(tree: Path) -> int:
    return size_of_files(*tree.glob(".layers/*/*/layerfs"))


def ask(place: str | Path, *arguments: str, **env: str) -> Result:
    result = run_here(*arguments, "--repository", place, env=env)
    assert result.code == 0, result.err
    return result


def json_of(place: str | Path, *arguments: str, **env: str) -> dict[str, Any]:
    value: dict[str, Any] = ask(place, *arguments, "--output", "json", **env).json
    return value


def test_platforms_and_retired_images_are_freed_as_announced(tmp_path: Path) -> None:
    tree = tmp_path / "images"
    publish_example(tree, tmp_path / "sources")
    sums = json_of(tree, "stats")["totals"]
    flat = len(list(tree.glob(".flat/*/*")))
    assert (sums["names"], sums["images"] + sums["retired"], sums["retired"]) == (5, flat, 1)
    assert sums["bytes"] == of_layers(tree)
    usage = json_of(tree, "du", MULTI)["images"]
    assert [(each["name"], each["manifests"]) for each in usage] == [(MULTI, 3)]

    before = of_layers(tree)
    ask(tree, "gc", "--image", TOOL, "--now")  # the retired one: its tag has moved
    assert before - of_layers(tree) == sums["retiredBytes"] > 0
    assert json_of(tree, "stats")["totals"]["retiredBytes"] == 0
    for name in (MULTI, TOOL):
        before = of_layers(tree)
        freed = json_of(tree, "du", name)["together"]["freedBytes"]
        ask(tree, "remove", name)
        ask(tree, "gc", "--now")
        assert before - of_layers(tree) == freed > 0


@pytest.mark.parametrize("kind", KINDS)
def test_squashfs_files_are_freed_with_the_last_name_of_an_image(tmp_path: Path, kind: str) -> None:
    require("mksquashfs")
    published = make_repository(kind, tmp_path)
    write_layout(image(layer(file("f", b"x" * 5000))), tmp_path / "layout", "1")
    wishes = [
        f"  - {{image: 'oci:{tmp_path}/layout:1', name: {name}, outputs: [flat, squashfs]}}\n"
        for name in ("one", "two")
    ]
    (tmp_path / "list.yaml").write_text("version: 2\nimages:\n" + "".join(wishes))
    place, env = published.url, {"HOME": str(tmp_path), **published.env}
    ask(place, "ingest", str(tmp_path / "list.yaml"), "-q", **env)
    [single] = published.root.glob(".squashfs/*/*")
    found = json_of(place, "stats", "--contents", **env)
    assert found["totals"]["squashfsBytes"] == single.stat().st_size
    assert [each["freedBytes"] for each in found["images"]] == [0, 0]
    assert found["wishLists"][0]["freedBytes"] == single.stat().st_size + 5000
    assert (found["contents"]["contents"], found["contents"]["flatImages"]) == (1, 1)
    usage = json_of(place, "du", "local/*", **env)
    assert usage["together"]["freedBytes"] == found["wishLists"][0]["freedBytes"]
    ask(place, "remove", "local/one:1", **env)
    collected = json_of(place, "gc", "--now", **env)
    assert collected["bytes"] == 0
    ask(place, "remove", "local/two:1", **env)
    collected = json_of(place, "gc", "--now", **env)
    assert collected["bytes"] == usage["together"]["freedBytes"]
    assert json_of(place, "stats", **env)["totals"]["bytes"] == 0


def test_a_terminal_shows_bars_and_texts_from_outside_as_they_are(tmp_path: Path) -> None:
    write_layout(image(layer(file("f", b"x" * 5000))), tmp_path / "layout", "1")
    tree = tmp_path / "images"
    ask(tree, "ingest-image", f"oci:{tmp_path}/layout:1", "-q")
    record = tree / layout.publication_file("local/layout:1")
    value = json.loads(record.read_bytes())
    value["owner"] = "[red]x[/red] \u202e\x1b[2J " + "y" * 300
    record.write_text(json.dumps(value))
    terminal = Terminal(command("stats", "--repository", tree), LANG="C.UTF-8")
    assert terminal.wait() == 0
    assert terminal.shows("████████")
    assert terminal.shows("local/layout:1")
    narrow = Terminal(command("du", "local/layout:1", "--repository", tree), COLUMNS="50")
    assert narrow.wait() == 0
    assert narrow.shows("local/layout:1       1      1  5.0 kB     0 B     5.0 kB  5.0 kB")
    plain = ask(tree, "stats").out
    assert "\n[red]x[/red] \\u202e\\x1b[2J y" in plain and "█" not in plain
    assert "\x1b" not in ask(tree, "stats", "--output", "csv", "--table", "owners").out
