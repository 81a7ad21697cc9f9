"""The picture of space is in proportion to the bytes, and complete."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.repository.directory.repository import DirectoryRepository
from publisher.site.space import Part, arranged, labels, space_page
from publisher.site.survey import Remembered, survey_repository
from publisher.site.treemap import Rectangle, squarify
from publisher.tree.layout import RepositoryURL
from tests.command import run_here
from tests.layer_builder import file, image, layer, write_layout


@given(st.lists(st.integers(1, 10**12), max_size=60), st.floats(1, 2000), st.floats(1, 2000))
def test_areas_are_in_proportion_and_inside(sizes: list[int], width: float, height: float) -> None:
    sizes.sort(reverse=True)
    places = squarify(sizes, Rectangle(5, 7, width, height))
    assert len(places) == len(sizes)
    for size, place in zip(sizes, places, strict=True):
        expected = size / sum(sizes) * width * height
        assert place.width * place.height == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert place.x >= 5 - 1e-6 and place.x + place.width <= 5 + width + 1e-3
        assert place.y >= 7 - 1e-6 and place.y + place.height <= 7 + height + 1e-3


def test_an_empty_area_gives_empty_rectangles() -> None:
    assert {place.width * place.height for place in squarify([3, 2, 1], Rectangle(0, 0, 0, 9))} == {
        0
    }


def test_the_picture_has_every_byte_once(tmp_path: Path) -> None:
    base = layer(file("base", b"b" * 4000))
    for name, size in (("one", 100), ("two", 300), ("other", 50)):
        write_layout(image(base, layer(file("own", b"x" * size))), tmp_path / name, "1")
        arguments = ("ingest-image", f"oci:{tmp_path}/{name}:1", "--name", f"team/{name}")
        assert run_here(*arguments, "--repository", tmp_path / "images").code == 0
    assert run_here("remove", "local/team/other:1", "--repository", tmp_path / "images").code == 0
    repository = DirectoryRepository(RepositoryURL("dir", str(tmp_path / "images")))
    now = datetime.now(UTC)
    survey = survey_repository(repository, Remembered(), now, {}, lambda error: None)
    page = space_page(survey)
    assert (page.stored, page.shared, page.separate) == (4450, 4000, 3 * 4000 + 450)
    assert [each.kind for each in page.maps] == ["wide", "narrow"]
    for each in page.maps:
        blocks = {block.title: block for group in each.groups for block in group.blocks}
        assert sum(block.size for block in blocks.values()) == 4450
        assert blocks["only local/team/two:1"].size == 300
        assert blocks["only local/team/two:1"].text == "two:1"
        [shared] = [block for block in blocks.values() if block.is_shared]
        assert shared.size == 4000 and shared.title.endswith("and 2 more")
        assert shared.text.endswith(":1 + 2")
        assert all(g.x >= 0 and g.x + g.width <= each.width for g in each.groups)
        assert all(g.y >= 0 and g.y + g.height <= each.height for g in each.groups)
    largest = page.images[0]
    assert (largest.name.text, largest.stored, largest.exclusive) == ("local/team/two:1", 4300, 300)
    assert [(bar.images, bar.stored) for bar in page.growth] == [(3, 4450)]


def test_many_image_repositories_are_parts_of_the_directories_above_them() -> None:
    def parts(*sizes: int) -> list[Part]:
        return [Part(f"{size}", "page", size, False, name=f"tool:{size}") for size in sizes]

    groups = [
        ("Layers of several images", [Part("base:1 + 2", "page", 50, True)], 50),
        ("quay.io/astro/two words", parts(3, 4), 7),
        ("quay.io/astro/one", parts(5), 5),
        ("quay.io/bio/tool", parts(2), 2),
    ]
    assert arranged(groups, 4) == groups
    found = {title: (each, size) for title, each, size in arranged(groups, 3)}
    assert found["Layers of several images"] == (groups[0][1], 50)
    several, single = found["quay.io/astro"][0]
    assert (several.label, several.size) == ("two words", 7)
    assert several.page == "index.html#q=quay.io/astro/two%20words"
    assert several.note == "2 images of quay.io/astro/two words"
    assert (single.label, single.page, single.size) == ("tool:5", "page", 5)
    assert {title: size for title, (_, size) in found.items()} == {
        "Layers of several images": 50,
        "quay.io/astro": 12,
        "quay.io/bio": 2,
    }


def test_months_have_labels_that_do_not_overlap() -> None:
    def months(first: int, count: int) -> list[str]:
        return [f"{at // 12}-{at % 12 + 1:02}" for at in range(first, first + count)]

    for first in range(2024 * 12, 2024 * 12 + 12):
        for count in range(1, 37):
            step = min(1000 / count, 80)
            found = labels(months(first, count), step)
            assert found[0] == 0 and sorted(set(found)) == found
            assert all((b - a) * step >= 140 for a, b in itertools.pairwise(found))
    assert labels(months(2024 * 12, 30), 1000 / 30) == [0, 12, 24]
    assert labels([], 80) == []
