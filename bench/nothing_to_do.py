"""What does an ingest cost that finds its image unchanged? Wall and CPU time, in both backends.

    python -m bench.nothing_to_do [--rounds N]

One small image, in a registry in this process, is published in a directory and in a repository of
the CVMFS stand-in; then the same commands run again. Prints medians of N runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bench.measure import Command, Contender, measure, median
from tests.command import succeed
from tests.cvmfs import make_machine
from tests.layer_builder import file, image, layer
from tests.registry import OwnRegistry

BASELINE = "python3 -c pass"


def main() -> None:
    """Publish, measure and print."""
    parser = argparse.ArgumentParser(prog="bench.nothing_to_do", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, of which the median")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="bench-nothing-") as work, OwnRegistry() as registry:
        folder = Path(work)
        registry.add("bench/small", "1", image(layer(file("motd"))))
        machine = make_machine(folder / "machine")
        name = machine.make("bench.example.org")
        os.environ.update(machine.environment)
        publish = ("ingest-image", f"http://{registry.host}/bench/small:1", "--repository")
        repositories = {"directory": f"dir:{folder}/images", "CVMFS": f"cvmfs:{name}"}
        for url in repositories.values():
            succeed(*publish, url, env=dict(machine.environment))
        run = (sys.executable, "-m", "publisher", *publish)
        commands: dict[str, Command] = {
            BASELINE: (sys.executable, "-c", "pass"),
            **{name: (*run, url) for name, url in repositories.items()},
        }
        costs = measure({name: _always(command) for name, command in commands.items()}, rounds)
    least = median(costs[BASELINE]).cpu
    print(f"{'unchanged image':20} {'wall ms':>8} {'CPU ms':>7} {'x':>6}")
    for name, each in costs.items():
        cost = median(each)
        print(f"{name:20} {cost.wall * 1000:8.0f} {cost.cpu * 1000:7.0f} {cost.cpu / least:6.1f}")


def _always(command: Command) -> Contender:
    return lambda _: [command]


if __name__ == "__main__":
    main()
