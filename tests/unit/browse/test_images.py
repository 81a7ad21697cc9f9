"""`publisher list` and `show` report images, and what is unreadable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from publisher.tree import layout
from tests.command import Result, run_here
from tests.layer_builder import file, image, layer, write_layout
from tests.schemas import output_schema

NAMES = ["local/one:1", "local/two:1"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate(["one", "two"]):
        built = image(layer(file("etc/os", b"base")), layer(file("data", b"x" * (number + 1))))
        write_layout(built, tmp_path / name, "1")
        assert ask(tmp_path, "ingest-image", f"oci:{tmp_path}/{name}:1").code == 0
    return tmp_path


def ask(root: Path, *arguments: str) -> Result:
    return run_here(*arguments, "--repository", root / "images")


def listed(root: Path, *, code: int = 0) -> list[dict[str, Any]]:
    result = ask(root, "list", "--output", "json")
    assert result.code == code, result.err
    output_schema("list/1").validate(result.json)
    images: list[dict[str, Any]] = result.json["images"]
    return images


def test_a_list_shows_the_size_of_all_files_and_what_is_pinned_and_scheduled(root: Path) -> None:
    plain = listed(root)
    assert [each["bytes"] for each in plain] == [5, 6]
    assert [(e["pinned"], e["removableFrom"]) for e in plain] == [(False, None)] * 2
    assert ask(root, "pin", NAMES[0], "--until", "2999-12-31").code == 0
    assert ask(root, "remove", NAMES[1]).code == 0
    one, two = listed(root)
    assert (one["pinned"], one["pinnedUntil"], one["removableFrom"]) == (True, "2999-12-31", None)
    assert (two["pinned"], two["pinnedUntil"]) == (False, None)
    assert two["removableFrom"].endswith("Z")
    first, second = ask(root, "list").out.splitlines()
    assert "  5 B  " in first and first.endswith("  pinned until 2999-12-31")
    assert "  6 B  " in second and "  scheduled, may be removed from " in second
    assert " B compressed  in 1 image\n" in ask(root, "show", NAMES[0]).out  # not the 5 B above


def test_a_size_is_unknown_where_a_layer_has_no_index(root: Path) -> None:
    base = layer(file("etc/os", b"base"))
    (root / "images" / layout.layer_index(base.digest)).unlink()
    assert [each["bytes"] for each in listed(root)] == [None, None]
    assert "  ?  " in ask(root, "list").out


def test_a_pattern_that_matches_no_image_is_named(root: Path) -> None:
    result = ask(root, "list", "docker.io/*")
    assert (result.code, result.out) == (0, "")
    assert "no published image matches 'docker.io/*'" in result.err
    assert ask(root, "list", "local/*").err == ""
    assert "no published image contains 'nothing*'" in ask(root, "find", "nothing*").err


def test_list_and_show_end_with_1_where_an_image_is_unreadable(root: Path) -> None:
    path = root / "images" / layout.publication_file(NAMES[0])
    path.write_bytes(path.read_bytes()[:-30])
    assert [("problem" in each) for each in listed(root, code=1)] == [True, False]
    for command in ("list",), ("show", NAMES[0]), ("show", NAMES[0], "--output", "json"):
        result = ask(root, *command)
        assert result.code == 1
        assert "try: publisher verify" in result.err
    assert ask(root, "show", NAMES[1]).code == 0
    assert ask(root, "verify", "--repair").code == 0
    assert ask(root, "list").code == 0


@pytest.mark.parametrize("record", [layout.REMOVE_SCHEDULE, layout.PINS])
def test_list_and_show_report_unreadable_records_and_show_the_images(
    root: Path, record: str
) -> None:
    ask(root, "pin", NAMES[0])
    ask(root, "remove", NAMES[1])
    (root / "images" / record).write_bytes(b"{")
    result = ask(root, "list")
    assert result.code == 1
    assert [line.split()[0] for line in result.out.splitlines()] == NAMES
    assert f"cannot read {record}" in result.err
    assert ask(root, "show", NAMES[0]).code == 1
