"""The page of results: it and its figures are made from what is measured."""

from __future__ import annotations

import json
import re
import tomllib
from xml.etree import ElementTree

from bench.growth import fit
from bench.results import plots
from bench.results.complexity import CEILINGS
from bench.results.plots import Axis
from bench.results.report import FIGURES, MEASURED, PAGE, report
from bench.results.summary import SAME_ENGINE, SAME_FILES, TREE, WAYS, scatter, summary
from tests.schemas import ROOT


def test_the_page_and_its_figures_are_those_of_the_measurements() -> None:
    page, figures = report(json.loads(MEASURED.read_bytes()))
    assert page == PAGE.read_text(), "python -m bench.results.report writes it"
    assert {path.name for path in FIGURES.glob("results-*.svg")} == set(figures)
    for name, text in figures.items():
        assert text == (FIGURES / name).read_text(), name
        assert "prefers-color-scheme: dark" in text
        ElementTree.fromstring(text)


def test_the_summary_is_computed_from_what_is_measured() -> None:
    images = [
        {"name": name, "flatBytes": 10_000_000, "squashfs": 3_000_000} for name in ("a:1", "b:1")
    ]
    layers = [{"bytes": 8_000_000, "compressed": 2_000_000}]
    starts = {
        "a:1": {way: {"cold": 6.0, "coldMost": 9.0, "warm": 1.0} for way in WAYS}
        | {TREE: {"cold": 0.5, "coldMost": 0.5, "warm": 0.1}}
        | {SAME_FILES[0]: {"cold": 2.0, "coldMost": 2.0, "warm": 1.0}}
        | {SAME_FILES[1]: {"cold": 3.0, "coldMost": 3.0, "warm": 1.0}}
        | {way: {"cold": 1.5, "coldMost": 1.5, "warm": 0.8} for way, _ in SAME_ENGINE}
    }
    results = {
        "space": {"images": images, "layers": layers},
        "shares": [{"name": "a:1", "bytes": 500_000}, {"name": "b:1", "bytes": 600_000}],
        "starts": {"starts": starts},
    }
    space, start, read = (" ".join(each.split()) for each in summary(results))
    assert "2 images in 40% of what" in space and "8.0 MB of 20.0 MB" in space
    assert space.endswith("squashfs files take 75%, the layers in a registry take 25%.")
    assert "0.50 to 0.50 s" in start and "1.5 to 1.5 times as long as" in start
    assert "4 to 4 times" in start and "0.20 s at most" in start
    assert "5.0% to 6.0%" in read and "not more than the 7%" in read
    assert scatter(results) == "1.5"
    del starts["a:1"]["pull and run, Docker"]
    assert len(summary(results)) == 2
    assert (summary({}), scatter({})) == ([], "1.0")


def test_the_ceilings_on_the_page_are_those_of_the_lint_step() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert {
        "cyclomatic": project["ruff"]["lint"]["mccabe"]["max-complexity"],
        "cognitive": project["complexipy"]["max-complexity-allowed"],
    } == CEILINGS
    assert re.search(r"^\t\$\(BIN\)/complexipy ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_a_curve_is_fitted_and_continued() -> None:
    sizes = [100, 200, 400, 800]
    curve = fit(sizes, [2 + 0.01 * size**1.5 for size in sizes])
    assert abs(curve.exponent - 1.5) < 0.02
    assert abs(curve.size_at(2 + 0.01 * 10_000**1.5) - 10_000) < 500
    assert fit(sizes, [3.0, 3.0, 3.0, 3.0]).size_at(3600) > 10**12


def test_plots_show_values_where_the_axes_have_them() -> None:
    text = plots.lines(
        "a < b", Axis("x", logarithmic=True), Axis("y"), {"s": [(1, 0), (10, 5), (100, 10)]}
    )
    root = ElementTree.fromstring(text)
    (line,) = root.iter("{http://www.w3.org/2000/svg}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert points[1][0] - points[0][0] == points[2][0] - points[1][0]
    assert points[0][1] - points[1][1] == points[1][1] - points[2][1] > 0
    shown = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a < b", "1", "10", "100", "x", "y", "s"} <= set(shown)
    bars = ElementTree.fromstring(plots.bars("t", "GB", {"one": {"": 2.0}, "two": {"": 1.0}}))
    widths = [
        float(each.attrib["width"])
        for each in bars.iter("{http://www.w3.org/2000/svg}rect")
        if each.attrib["class"] == "s0"
    ]
    assert widths[0] == 2 * widths[1]
    long = plots.bars("t", "GB", {"a" * 60: {"": 2.0}})
    (end,) = re.findall(r'text-anchor="end" x="(\d+)"', long)
    assert int(end) > 60 * 7, "the name of a bar begins inside the plot"
