"""What does a command cost that has nothing to do? CPU seconds, beside those of other programs.

    python -m bench.start_up [--rounds N]

An image is published from an OCI layout; then each command runs N times, in turn. Prints medians,
and the ratio to `python3 -c pass`, which depends little on the machine and on its load.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.measure import Command, Contender, measure, median
from tests.command import succeed
from tests.layer_builder import file, image, layer, write_layout

BASELINE = "python3 -c pass"


def main() -> None:
    """Publish, measure and print."""
    parser = argparse.ArgumentParser(prog="bench.start_up", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, of which the median")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="bench-start-") as folder:
        costs = measure(contenders(Path(folder)), rounds)
    least = median(costs[BASELINE]).cpu
    print(f"{'command':28} {'CPU ms':>7} {'x':>6} {'peak MB':>8}")
    for name, each in costs.items():
        cost = median(each)
        print(f"{name:28} {cost.cpu * 1000:7.0f} {cost.cpu / least:6.1f} {cost.memory / 1e6:8.0f}")


def contenders(folder: Path, publish: Callable[..., object] = succeed) -> dict[str, Contender]:
    """Return the commands by name: two of other programs, and those that reach no registry.

    `publish` runs the command that makes the repository.
    """
    layout = write_layout(image(layer(file("motd"))), folder / "layout", "1")
    wishes = folder / "wishlist.yaml"
    wishes.write_text(f"version: 2\nimages:\n- image: oci:{layout}:1\n  name: one\n")
    tree = folder / "images"
    publish("ingest", wishes, "--repository", tree)
    commands: dict[str, Command] = {
        BASELINE: (sys.executable, "-c", "pass"),
        "git --version": ("git", "--version"),
    }
    of_tree = ("--repository", str(tree))
    for arguments in (
        ("version",),
        ("--help",),
        ("list", *of_tree),
        ("show", "local/one:1", *of_tree),
        ("log", *of_tree),
        ("schedule", *of_tree),
        ("status", str(wishes), *of_tree),
        ("plan", str(wishes), *of_tree),
        ("prune", "--dry-run", str(wishes), *of_tree),
        ("gc", "--dry-run", *of_tree),
    ):
        commands[f"publisher {arguments[0]}"] = (sys.executable, "-m", "publisher", *arguments)
    return {name: _always(command) for name, command in commands.items()}


def _always(command: Command) -> Contender:
    return lambda _: [command]


if __name__ == "__main__":
    main()
