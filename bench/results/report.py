"""docs/results.md and its figures, from what is measured.

    python -m bench.results.report [FOLDER]

With the folder of a run of `bench.results`, its measurements become docs/figures/results.json; the
page and the figures are made from that file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from bench.results import plots
from bench.results.complexity import CEILINGS
from bench.results.plots import Axis
from bench.results.state import ROOT, SPACE, State
from bench.results.summary import scatter, summary
from bench.results.texts import size_text

PAGE = ROOT / "docs/results.md"
FIGURES = ROOT / "docs/figures"
MEASURED = FIGURES / "results.json"

Results = Mapping[str, Any]
Figures = dict[str, str]

_TEMPLATE = Path(__file__).with_name("results.md.jinja")

Section = Callable[[Results, Figures], dict[str, Any]]


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="bench.results.report", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="the folder of bench.results")
    folder = parser.parse_args().folder
    documents = State(folder).documents() if folder else json.loads(MEASURED.read_bytes())
    MEASURED.write_text(json.dumps(documents, indent=1) + "\n")
    page, figures = report(documents)
    PAGE.write_text(page)
    for path in FIGURES.glob("results-*.svg"):
        path.unlink()
    for name, text in figures.items():
        (FIGURES / name).write_text(text)


def report(documents: Results) -> tuple[str, Figures]:
    """Return the page, and the figures by name; what is not measured is left out."""
    results = {name: document["result"] for name, document in documents.items()}
    figures: Figures = {}
    values = {
        name: section(results, figures)
        for name, (needed, section) in _SECTIONS.items()
        if all(each in results for each in needed)
    }
    template = jinja2.Template(
        _TEMPLATE.read_text(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    absent = dict.fromkeys(_SECTIONS)
    page = template.render(
        absent | values,
        space_limit=SPACE,
        run=_run(documents),
        summary=summary(results),
        scatter=scatter(results),
    )
    return page.rstrip("\n") + "\n", figures


def _run(documents: Results) -> dict[str, Any]:
    """Return what the page has about the run as a whole: machine, commits, load, duration."""
    hows = {name: each["circumstances"] for name, each in documents.items()}
    in_order = sorted(hows.items(), key=lambda each: each[1]["date"])
    rows = []
    for name, how in in_order:
        load = f"{how['load'][0]} to {how['load'][1]}"
        date = f"{how['date'][:16].replace('T', ' ')} UTC"
        rows.append((name, how["commit"], date, load, f"{how['seconds']:,} s"))
    machines = {", ".join(f"{key}: {value}" for key, value in how["machine"].items())
                for how in hows.values()}  # fmt: skip
    loads = [load for how in hows.values() for load in how["load"]]
    return {
        "machine": "; ".join(sorted(machines)),
        "commits": sorted({how["commit"] for how in hows.values()}),
        "first_load": in_order[0][1]["load"][0] if in_order else 0,
        "most_load": max(loads, default=0),
        "minutes": f"{sum(how['seconds'] for how in hows.values()) / 60:.0f}",
        "table": _table(("measurement", "commit", "ended", "load", "took"), rows),
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _times(part: float, whole: float) -> str:
    return f"{part / whole:.2f}"


# Space --------------------------------------------------------------------------------------------


def _images(results: Results, figures: Figures) -> dict[str, Any]:
    rows = [
        (
            published["name"],
            published["parent"] or "-",
            published["layers"],
            size_text(space["compressed"]),
            size_text(space["flatBytes"]),
            f"{space['flatFiles']:,}",
            f"{published['wall']:.1f}",
        )
        for published, space in zip(results["publication"], results["space"]["images"], strict=True)
    ]
    head = ("image", "made from", "layers", "compressed", "flat", "files", "s")
    return {"count": len(rows), "table": _table(head, rows)}


def _space(results: Results, figures: Figures) -> dict[str, Any]:
    space = results["space"]
    images, layers, tree = space["images"], space["layers"], space["tree"]
    total = {
        key: sum(each[key] for each in images)
        for key in images[0]
        if key != "name" and all(key in each for each in images)
    }
    stored = sum(layer["bytes"] for layer in layers)
    forms = {
        "each image unpacked by itself": total["flatBytes"],
        "each image as squashfs": total["squashfs"],
        **({"each image as a SIF file": total["sif"]} if "sif" in total else {}),
        "each image's layers, compressed": total["compressed"],
        "distinct layers, compressed (a registry)": sum(layer["compressed"] for layer in layers),
        "distinct layers, unpacked: the tree": stored,
        "distinct contents of files": space["contentBytes"],
        "one squashfs of all layers": tree["oneSquashfs"],
    }
    figures["results-forms.svg"] = plots.bars(
        f"The space of {len(images)} images", "GB",
        {name: {"": size / 1e9} for name, size in forms.items()},
    )  # fmt: skip
    sums: dict[str, list[tuple[float, float]]] = {
        name: [] for name in ("unpacked by itself", "squashfs", "layers of the tree", "contents")
    }
    running = dict.fromkeys(sums, 0.0)
    keys = ("flatBytes", "squashfs", "newLayerBytes", "newContentBytes")
    for number, each in enumerate(images, 1):
        for name, key in zip(sums, keys, strict=True):
            running[name] += each[key] / 1e9
            sums[name].append((number, running[name]))
    figures["results-space.svg"] = plots.lines(
        "Space with each further image", Axis("images published"), Axis("GB"), sums
    )
    table = _table(
        ("form", "bytes", "of unpacked images"),
        [(name, size_text(size), _times(size, total["flatBytes"])) for name, size in forms.items()],
    )
    flat_disk = tree["disk"] - tree["diskWithoutFlat"]
    users: dict[int, list[int]] = {}
    for layer in layers:
        users.setdefault(layer["images"], []).append(layer["bytes"])
    shared = _table(
        ("images that use a layer", "layers", "bytes"),
        [(count, len(sizes), size_text(sum(sizes))) for count, sizes in sorted(users.items())],
    )
    return {
        "forms": table,
        "provided": size_text(total["flatBytes"]),
        "stored": size_text(stored),
        "count": len(images),
        "than_single": _more_or_less(
            stored, {"SIF files": total.get("sif", 0), "squashfs files": total["squashfs"]}
        ),
        "factor": f"{total['flatBytes'] / stored:.1f}",
        "disk": size_text(tree["disk"]),
        "flat_disk": size_text(flat_disk),
        "repeated": f"{1 - space['contentBytes'] / stored:.0%}",
        "shared": shared,
        "versions": _versions(images),
    }


def _more_or_less(stored: float, single: Mapping[str, float]) -> str:
    """Return how the tree compares with other forms: "7% more than squashfs files"."""
    parts = [
        f"{abs(stored / size - 1):.0%} {'more' if stored > size else 'less'} than {name}"
        for name, size in single.items()
        if size
    ]
    return " and ".join(parts)


def _versions(images: Sequence[Mapping[str, Any]]) -> str:
    families: dict[str, list[Mapping[str, Any]]] = {}
    for each in images:
        families.setdefault(each["name"].partition(":")[0], []).append(each)
    rows = []
    for family, versions in families.items():
        if len(versions) < 3 or family in ("debian", "python"):  # releases, which share nothing
            continue
        later = versions[1:]
        count = len(later)

        def mean(key: str, later: Sequence[Mapping[str, Any]] = later, count: int = count) -> str:
            return size_text(sum(each[key] for each in later) / count)

        rows.append(
            (
                family,
                len(versions),
                *map(mean, ("newLayerBytes", "newContentBytes", "squashfs", "newLayerCompressed")),
            )
        )
    head = ("family", "versions", "new layers", "new contents", "a squashfs", "a pull")
    return _table(head, rows)


# Starts -------------------------------------------------------------------------------------------


def _shares(results: Results, figures: Figures) -> dict[str, Any]:
    whole = {each["name"]: each for each in results["space"]["images"]}
    rows = []
    for each in results["shares"]:
        image = whole[each["name"]]
        rows.append((each, image, each["bytes"] / image["flatBytes"]))
    ordered = sorted(share for _, _, share in rows)
    opened = sum(each["bytes"] for each, _, _ in rows)
    most = max((each for each, _, _ in rows), key=lambda each: each["files"])
    total = sum(image["flatBytes"] for _, image, _ in rows)
    table = _table(
        ("image", "files opened", "of", "bytes of these", "of", "share"),
        [
            (each["name"], f"{each['files']:,}", f"{image['flatFiles']:,}",
             size_text(each["bytes"]), size_text(image["flatBytes"]), f"{share:.1%}")
            for each, image, share in rows
        ],
    )  # fmt: skip
    return {
        "table": table,
        "most_files": {
            "name": most["name"],
            "files": f"{most['files']:,}",
            "seconds": f"{most['files'] / 1000:.1f}",
        },
        "gcc": next((each["files"] for each, _, _ in rows if each["name"] == "gcc:14"), "few"),
        "median": f"{ordered[len(ordered) // 2]:.1%}",
        "all": f"{opened / total:.1%}",
    }


def _starts(results: Results, figures: Figures) -> dict[str, Any]:
    starts = results["starts"]
    all_ways = list(dict.fromkeys(way for ways in starts["starts"].values() for way in ways))
    parts = []
    for image, ways in starts["starts"].items():
        name = f"results-start-{image.replace(':', '-')}.svg"
        figures[name] = plots.bars(
            f"First output of {image}", "s",
            {way: {"cold": each["cold"], "warm": each["warm"]} for way, each in ways.items()},
        )  # fmt: skip
        table = _table(
            ("way", "cold s", "slowest", "warm s", "read from the disk", "from the registry"),
            [(way, *_start(ways.get(way))) for way in all_ways],
        )
        parts.append({"name": image, "figure": name, "table": table})
    engines = ", ".join(f"{name} {version}" for name, version in starts["engines"].items())
    return {
        "engines": engines,
        "images": parts,
        "rounds": _rounds(starts["rounds"]),
        "failed": any(len(ways) < len(all_ways) for ways in starts["starts"].values()),
    }


def _start(measured: Mapping[str, Any] | None) -> Sequence[str]:
    if not measured:
        return ("failed", *["-"] * 4)
    seconds = (f"{measured[key]:.2f}" for key in ("cold", "coldMost", "warm"))
    return (*seconds, *(size_text(measured[key]) for key in ("read", "fetched")))


def _rounds(number: int) -> str:
    return "One round" if number == 1 else f"Medians of {number} rounds"


# Catalogs -----------------------------------------------------------------------------------------


def _catalogs(results: Results, figures: Figures) -> dict[str, Any]:
    catalogs = results["catalogs"]
    keys = ("catalogs", "median", "ninetieth", "largest", "over")
    table = _table(
        ("catalogs", "number", "median", "90%", "largest", "with more than 100,000"),
        [
            (way, *(f"{each[key]:,}" for key in keys))
            for way, each in catalogs["ways"].items()
        ],
    )  # fmt: skip
    figures["results-catalogs.svg"] = plots.lines(
        "Entries of layers and flat images, by rank",
        Axis("rank", logarithmic=True), Axis("entries", logarithmic=True),
        {
            name: [(n, max(size, 1)) for n, size in enumerate(sorted(catalogs[key])[::-1], 1)]
            for name, key in (("layers", "layers"), ("flat images", "flat"))
        },
    )  # fmt: skip
    return {"table": table}


# Complexity ---------------------------------------------------------------------------------------


def _complexity(results: Results, figures: Figures) -> dict[str, Any]:
    complexity = results["complexity"]
    history = complexity["history"]
    for kind in ("cyclomatic", "cognitive"):
        figures[f"results-{kind}.svg"] = plots.lines(
            f"{kind.capitalize()} complexity of functions, over the history",
            Axis("functions in the package"), Axis("complexity"),
            {
                name: [(each["functions"], each[kind][key]) for each in history]
                for name, key in (("largest", "largest"), ("90%", "ninetieth"), ("mean", "mean"))
            },
        )  # fmt: skip
    table = _table(
        ("commit", "date", "lines", "functions", "cyclomatic: mean", "90%", "largest",
         "cognitive: mean", "90%", "largest"),
        [
            (each["commit"], each["date"], f"{each['lines']:,}", f"{each['functions']:,}",
             *(each[kind][key] for kind in ("cyclomatic", "cognitive")
               for key in ("mean", "ninetieth", "largest")))
            for each in history
        ],
    )  # fmt: skip
    most = _table(
        ("most complex by", "functions"),
        [
            (kind, "; ".join(f"`{name}` {size}" for name, size in complexity["most"][kind]))
            for kind in ("cyclomatic", "cognitive")
        ],
    )
    return {"table": table, "most": most, "ceilings": CEILINGS}


# Costs --------------------------------------------------------------------------------------------


def _costs(results: Results, figures: Figures) -> dict[str, Any]:
    costs = results["costs"]
    rows = [
        (name, f"{each['wall']:.2f}", f"{each['most']:.2f}", f"{each['user'] + each['system']:.2f}",
         f"{each['memory'] / 1e6:.0f}")
        for name, each in costs["costs"].items()
    ]  # fmt: skip
    published = results["publication"]
    cpu = sum(each["user"] + each["system"] for each in published)
    new = sum(each["newCompressed"] for each in published)
    return {
        "table": _table(("command", "wall s", "slowest", "CPU s", "MB"), rows),
        "moving": costs["moving"],
        "images": costs["images"],
        "rounds": _rounds(costs["rounds"]),
        "cpu": f"{cpu:,.0f}",
        "new": size_text(new),
        "rate": f"{new / cpu / 1e6:.1f}",
        "wall": f"{sum(each['wall'] for each in published):,.0f}",
        "memory": f"{max(each['memory'] for each in published) / 1e6:.0f}",
    }


def _growth(results: Results, figures: Figures) -> dict[str, Any]:
    rows = []
    series: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, each in results["growth"].items():
        ends = [
            text
            for text in (
                f"{_count(each['anHour'])} (an hour)" if each["anHour"] else "",
                f"{_count(each['memoryEnds'])} (4 GB)" if each["memoryEnds"] else "",
                f"{each['bound']:,} (refused)" if each["bound"] else "",
            )
            if text
        ]
        rows.append(
            (
                name,
                each["title"],
                each["unit"],
                ", ".join(f"{size:,}" for size in each["sizes"]),
                ", ".join(f"{cpu:.2f}" for cpu in each["cpu"]),
                "none" if each["exponent"] is None else f"{each['exponent']:.2f}",
                f"{each['memory'][0] / 1e6:.0f} to {each['memory'][-1] / 1e6:.0f}",
                "; ".join(ends) or "not in sight",
            )
        )
        points = list(zip(each["sizes"], each["cpu"], strict=True))
        series.setdefault(each["unit"], {})[name] = points
    names = []
    for unit, lines in series.items():
        names.append((unit, f"results-growth-{unit}.svg"))
        figures[names[-1][1]] = plots.lines(
            f"CPU seconds, by {unit}",
            Axis(unit, logarithmic=True), Axis("CPU s", logarithmic=True), lines,
        )  # fmt: skip
    head = ("name", "command", "grows with", "sizes", "CPU s", "exponent", "MB", "ends at")
    return {"table": _table(head, rows), "figures": names}


def _count(number: float) -> str:
    """Return a size that is only estimated: with two digits."""
    for unit, name in ((10**9, " billion"), (10**6, " million"), (10**3, ",000")):
        if number >= unit:
            return f"{float(f'{number / unit:.2g}'):,.0f}{name}" if number >= 10 * unit else (
                f"{number / unit:.1f}{name}" if unit > 10**3 else f"{round(number, -2):,}"
            )  # fmt: skip
    return f"{number:,.0f}"


_SECTIONS: Mapping[str, tuple[tuple[str, ...], Section]] = {
    "images": (("publication", "space"), _images),
    "space": (("space",), _space),
    "shares": (("space", "shares"), _shares),
    "starts": (("starts",), _starts),
    "catalogs": (("catalogs",), _catalogs),
    "complexity": (("complexity",), _complexity),
    "costs": (("publication", "costs"), _costs),
    "growth": (("growth",), _growth),
}
"""The sections of the page, each with the measurements that it needs."""


if __name__ == "__main__":
    main()
