"""The measurements of docs/results.md, in one command.

Makes 43 images of the kind that is published in science (Debian bases, Python, NumPy, SciPy,
pandas, R, C++ libraries, Node, Java; several versions of some) from the packages of Debian, PyPI
and npm, pushes them to a registry on this machine, publishes them, and measures. An interrupted run
goes on where it was: each measurement is a JSON file in the folder, with its commit and machine.

Needs root, and the disk of --space. What needs the network is in --prepare, which takes one to
two hours: the images, their SIF files, and the engines of Debian's development release. The
measurements themselves are for a machine that does nothing else; those whose times count come
first.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench.results.catalogs import measure_catalogs
from bench.results.complexity import measure_complexity
from bench.results.costs import measure_costs
from bench.results.growth import measure_growth
from bench.results.images import World, made_world, publish
from bench.results.space import measure_space
from bench.results.start import measure_shares, measure_starts
from bench.results.state import ROOT, SPACE, State, progress

Measurement = Callable[[Callable[[], World]], Any]


def _of_images(work: Callable[[World], Any]) -> Measurement:
    """Return a measurement of the published images."""
    return lambda world: work(world())


_MEASUREMENTS: dict[str, Measurement] = {
    "publication": _of_images(publish),
    "costs": _of_images(measure_costs),
    "starts": _of_images(measure_starts),
    "growth": lambda _: measure_growth(),
    "space": _of_images(measure_space),
    "catalogs": _of_images(measure_catalogs),
    "shares": _of_images(measure_shares),
    "complexity": lambda _: measure_complexity(),
}
_WITHOUT_IMAGES = {"growth", "complexity"}
"""All others need the published images, and so the publication."""

_QUICK: dict[str, Measurement] = {
    name: work for name, work in _MEASUREMENTS.items() if name not in ("starts", "growth")
} | {
    "costs": _of_images(partial(measure_costs, rounds=1)),
    "complexity": lambda _: measure_complexity(2),
}


def main() -> None:
    """Measure what is missing."""
    arguments = _arguments()
    state = State(arguments.folder.resolve())
    state.check_space(0.1 if arguments.quick else arguments.space)
    os.umask(0o022)
    measurements = _QUICK if arguments.quick else _MEASUREMENTS
    wanted = {name for name in arguments.only if name in measurements}
    with ExitStack() as stack:

        @cache
        def world() -> World:
            return stack.enter_context(made_world(state, quick=arguments.quick))

        if arguments.prepare:
            world()
            progress(f"prepared: {state.folder}")
            return
        needed = wanted | ({"publication"} if wanted - _WITHOUT_IMAGES else set())
        for name in (name for name in measurements if name in needed):
            again = arguments.again and name in wanted
            state.measure(name, partial(measurements[name], world), again=again)
    progress(f"done: {state.folder}/measured")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = tuple(_MEASUREMENTS)
    parser.add_argument("--folder", type=Path, default=ROOT / "build/results", help="where to work")
    parser.add_argument("--prepare", action="store_true", help="measure nothing yet")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME",
                        help=f"some of: {', '.join(names)}")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="measure what is measured already")
    parser.add_argument("--quick", action="store_true", help="three tiny images, to try it out")
    parser.add_argument(
        "--space", type=float, default=SPACE, metavar="GB", help="how much disk it may take"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
