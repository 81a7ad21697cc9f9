"""A wish list has one name in results, however it is written on the command line."""

from __future__ import annotations

from pathlib import Path

from tests.command import publisher
from tests.layer_builder import file, image, layer, write_layout


def test_a_wish_with_an_error_names_its_list_as_the_others_do(tmp_path: Path) -> None:
    built = write_layout(image(layer(file("motd"))), tmp_path / "layout", "1")
    wishes = tmp_path / "wishes.yaml"
    wishes.write_text(f"version: 2\nimages: ['oci:{built}:1', 'oci:{built}/../x:1']\n")
    arguments = ("--repository", tmp_path / "images", "--output", "json")
    result = publisher("ingest", "wishes.yaml", *arguments, cwd=tmp_path)
    outcomes = result.json["outcomes"]
    assert [o["status"] for o in outcomes] == ["published", "failed"]
    assert {o["wishList"] for o in outcomes} == {str(wishes)}
