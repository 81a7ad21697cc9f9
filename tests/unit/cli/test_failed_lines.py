"""A failed line carries file, line and column of its wish, in check, plan and ingest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import publisher
from tests.layer_builder import file, image, layer, write_layout
from tests.schemas import output_schema, strict


@pytest.fixture
def wishes(tmp_path: Path) -> Path:
    place = write_layout(image(layer(file("a"))), tmp_path / "layout", "good")
    path = tmp_path / "wishes.yaml"
    path.write_text(
        "version: 2\nimages:\n"
        f"  - oci:{place}:good\n"
        f"  - image: oci:{place}:absent\n"
        "    owner: astro\n"
        "  - 'A B'\n"
    )
    return path


@pytest.mark.parametrize("verb", ["plan", "ingest"])
def test_each_failed_image_is_printed_with_the_place_of_its_wish(
    tmp_path: Path, wishes: Path, verb: str
) -> None:
    tree = tmp_path / "images"
    (tree / ".metadata").mkdir(parents=True)
    result = publisher(verb, wishes, "--repository", tree)
    lines = [line for line in result.err.splitlines() if "failed: " in line]
    assert [line.split(" failed: ")[0] for line in lines] == [f"{wishes}:4:5:", f"{wishes}:6:5:"]
    assert "white space" in lines[1]
    assert lines[1].count("6:5") == 1

    result = publisher(verb, wishes, "--repository", tree, "--output", "json")
    strict(output_schema(f"{verb}/1")).validate(result.json)
    found = result.json["outcomes" if verb == "ingest" else "images"]
    assert [(each["wishList"], each["line"], each["column"]) for each in found] == [
        (str(wishes), line, 5) for line in (3, 4, 6)
    ]


def test_check_prints_the_column_as_well(wishes: Path) -> None:
    result = publisher("check", wishes)
    assert f"{wishes}:4:5: failed: local/layout:absent: " in result.out
    result = publisher("check", wishes, "--output", "json")
    strict(output_schema("check/1")).validate(result.json)
    assert [(each["line"], each["column"]) for each in result.json["images"]] == [(3, 5), (4, 5)]


def test_an_image_of_the_command_line_has_no_place(tmp_path: Path) -> None:
    place = write_layout(image(layer(file("a"))), tmp_path / "layout", "good")
    result = publisher("ingest-image", f"oci:{place}:absent", "--repository", tmp_path / "images")
    assert any(line.startswith("failed: local/layout:absent: ") for line in result.err.splitlines())
