"""The measurements of docs/results.md, in one command.

Makes 43 images of the kind that is published in science (Debian bases, Python, NumPy, SciPy,
pandas, R, C++ libraries, Node, Java; several versions of some) from the packages of Debian, PyPI
and npm, pushes them to a registry on this machine, publishes them, and measures. An interrupted run
goes on where it was: each measurement is a JSON file in the folder, with its commit and machine.
Needs root, an hour or more, and the disk of --space.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
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

_MEASUREMENTS: dict[str, Callable[[World], Any]] = {
    "publication": publish,
    "space": measure_space,
    "catalogs": measure_catalogs,
    "shares": measure_shares,
    "costs": measure_costs,
    "starts": measure_starts,
}
"""What needs the published images; the publication comes first."""

_OTHERS: dict[str, Callable[[], Any]] = {
    "complexity": measure_complexity,
    "growth": measure_growth,
}
_QUICK: dict[str, Callable[[], Any]] = {"complexity": partial(measure_complexity, 2)}
_NOT_QUICK = ("starts",)
_QUICK_MEASUREMENTS = _MEASUREMENTS | {"costs": partial(measure_costs, rounds=1)}


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(
        prog="bench.results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = (*_OTHERS, *_MEASUREMENTS)
    parser.add_argument("--folder", type=Path, default=ROOT / "build/results", help="where to work")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME",
                        help=f"some of: {', '.join(names)}")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="measure what is measured already")
    parser.add_argument("--quick", action="store_true", help="three tiny images, to try it out")
    parser.add_argument(
        "--space", type=float, default=SPACE, metavar="GB", help="how much disk it may take"
    )
    arguments = parser.parse_args()
    state = State(arguments.folder.resolve())
    state.check_space(0.1 if arguments.quick else arguments.space)
    os.umask(0o022)
    for name, work in (_QUICK if arguments.quick else _OTHERS).items():
        if name in arguments.only:
            state.measure(name, work, again=arguments.again)
    measurements = _QUICK_MEASUREMENTS if arguments.quick else _MEASUREMENTS
    skipped = _NOT_QUICK if arguments.quick else ()
    wanted = [each for each in _MEASUREMENTS if each in arguments.only and each not in skipped]
    if wanted:
        with made_world(state, quick=arguments.quick) as world:
            for name in dict.fromkeys(("publication", *wanted)):
                again = arguments.again and name in wanted
                state.measure(name, partial(measurements[name], world), again=again)
    progress(f"done: {state.folder}/measured")


if __name__ == "__main__":
    main()
