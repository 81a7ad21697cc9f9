"""A summary of the measurements in a few sentences: the beginning of docs/results.md."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from bench.results.texts import size_text

Results = Mapping[str, Any]

TREE = "flat image, bubblewrap"
SAME_FILES = ("flat image, Apptainer", "SIF file, Apptainer")
SAME_ENGINE = (
    ("Podman store, Podman", "pull and run, Podman"),
    ("snapshotter, containerd", "pull and run, containerd"),
    ("snapshotter, Docker", "pull and run, Docker"),
)
WAYS = {TREE, *SAME_FILES, *(way for pair in SAME_ENGINE for way in pair)}

THESIS_SHARE = 0.07


def summary(results: Results) -> list[str]:
    """Return a paragraph about each measurement that `results` has."""
    if not all(set(ways) >= WAYS for ways in results.get("starts", {}).get("starts", {}).values()):
        results = {name: each for name, each in results.items() if name != "starts"}
    return [
        textwrap.fill(paragraph(results), 138, subsequent_indent="  ")
        for needed, paragraph in _PARAGRAPHS
        if all(name in results for name in needed)
    ]


def scatter(results: Results) -> str:
    """Return how far apart the rounds of one command are: the slowest by the median."""
    costs = results["costs"]["costs"].values() if "costs" in results else ()
    ways = results["starts"]["starts"].values() if "starts" in results else ()
    ratios = [
        *(each["most"] / each["wall"] for each in costs),
        *(each["coldMost"] / each["cold"] for by_way in ways for each in by_way.values()),
    ]
    return f"{max(ratios, default=1):.1f}"


def _space(results: Results) -> str:
    space = results["space"]
    images = space["images"]
    unpacked = sum(each["flatBytes"] for each in images)
    stored = sum(layer["bytes"] for layer in space["layers"])
    single = {
        name: sum(each[key] for each in images)
        for name, key in (("squashfs files", "squashfs"), ("SIF files", "sif"))
        if all(key in each for each in images)
    }
    single["the layers in a registry"] = sum(layer["compressed"] for layer in space["layers"])
    others = [f"{name} take {_ratio(size, stored)}" for name, size in single.items()]
    return (
        f"**Space.** The tree stores {len(images)} images in {_ratio(stored, unpacked)} of what"
        f" they take unpacked one by one: {size_text(stored)} of {size_text(unpacked)}. It is not"
        f" compressed; the images share layers. Compared with the tree, {', '.join(others)}."
    )


def _starts(results: Results) -> str:
    ways = list(results["starts"]["starts"].values())
    cold = [each[TREE]["cold"] for each in ways]
    flat, single = SAME_FILES
    sif = [each[single]["cold"] / each[flat]["cold"] for each in ways]
    pulls = [
        each[pulled]["cold"] / each[mounted]["cold"]
        for each in ways
        for mounted, pulled in SAME_ENGINE
    ]
    warm = [
        abs(each[pulled]["warm"] - each[mounted]["warm"])
        for each in ways
        for mounted, pulled in SAME_ENGINE
    ]
    return (
        f"**Starts.** With an empty page cache, bubblewrap starts {len(ways)} images from the tree"
        f" in {_between(cold, '.2f')} s, to their first output."
        f" From a SIF file, Apptainer takes {_between(sif, '.1f')} times as long as from the tree;"
        f" Podman, containerd and Docker take {_between(pulls, '.0f')} times as long with a pull."
        " Once an image is pulled and cached, the tree has no advantage: the times in which"
        f" the same engine starts both differ by {max(warm):.2f} s at most."
    )


def _shares(results: Results) -> str:
    whole = {each["name"]: each["flatBytes"] for each in results["space"]["images"]}
    shares = sorted(each["bytes"] / whole[each["name"]] for each in results["shares"])
    median = shares[len(shares) // 2]
    return (
        f"**Reading.** A start opens files with {shares[0]:.1%} to {shares[-1]:.1%} of the bytes of"
        f" the image, and {median:.1%} in the median,"
        f" {'more' if median > THESIS_SHARE else 'not more'} than the 7% that the thesis names."
    )


def _catalogs(results: Results) -> str:
    ways = results["catalogs"]["ways"]
    plain, planned = (
        ways[name] for name in ("no nested catalogs of CVMFS", "planned, at most 10,000")
    )
    return (
        f"**Catalogs.** {plain['largest']:,} entries, which would be one catalog, are divided into"
        f" {planned['catalogs']:,} of at most {planned['largest']:,}, if 10,000 is the limit."
    )


def _costs(results: Results) -> str:
    published, costs = results["publication"], results["costs"]["costs"]
    cpu = sum(each["user"] + each["system"] for each in published)
    new = sum(each["newCompressed"] for each in published)
    return (
        f"**Costs.** The publication of all {len(published)} images takes {cpu:,.0f} CPU seconds,"
        f" that is {new / cpu / 1e6:.0f} MB of compressed layers for each of them, and at most"
        f" {max(each['memory'] for each in published) / 1e6:.0f} MB of memory. A run that finds"
        f" nothing to do takes {costs['ingest, nothing to do']['wall']:.1f} s."
    )


def _complexity(results: Results) -> str:
    complexity = results["complexity"]
    last, most = complexity["history"][-1], complexity["most"]
    return (
        f"**Complexity.** The package has {last['functions']:,} functions; the most complex has a"
        f" cyclomatic complexity of {most['cyclomatic'][0][1]}, and a cognitive one of"
        f" {most['cognitive'][0][1]}."
    )


def _ratio(part: float, whole: float) -> str:
    return f"{part / whole:.0%}"


def _between(numbers: list[float], form: str) -> str:
    return f"{min(numbers):{form}} to {max(numbers):{form}}"


_PARAGRAPHS: tuple[tuple[tuple[str, ...], Callable[[Results], str]], ...] = (
    (("space",), _space),
    (("starts",), _starts),
    (("space", "shares"), _shares),
    (("catalogs",), _catalogs),
    (("publication", "costs"), _costs),
    (("complexity",), _complexity),
)
"""The paragraphs in their order, each with the measurements that it needs."""
