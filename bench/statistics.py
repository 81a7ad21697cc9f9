"""`python -m bench.statistics`: the seconds and memory of `stats` and `du` in a large repository.

The repository is that of `bench.large_repository`. It is written into the folder, unless it exists.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.large_repository import Numbers, write_repository
from bench.measure import Command, Contender, measure, median

PUBLISHER = (sys.executable, "-m", "publisher")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.statistics", description=__doc__)
    usual = Numbers()
    parser.add_argument("folder", type=Path, help="the repository")
    parser.add_argument("--images", type=int, default=usual.images)
    parser.add_argument("--entries", type=int, default=usual.entries, help="of each image")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, of which the median")
    parser.add_argument("--contents", action="store_true", help="also `stats --contents`: minutes")
    given = parser.parse_args()
    if not given.folder.exists():
        write_repository(given.folder, Numbers(given.images, given.entries))
    commands: dict[str, Sequence[str | Path]] = {
        "list": ("list",),
        "stats": ("stats",),
        "stats --output json": ("stats", "--output", "json"),
        "du of one image": ("du", "registry.example.org/astro/tool-0:1"),
        "du --depth 2 of one image": ("du", "registry.example.org/astro/tool-0:1", "-d", "2"),
    }
    if given.contents:
        commands["stats --contents"] = ("stats", "--contents")
    contenders = {name: _contender(words, given.folder) for name, words in commands.items()}
    print(f"{'':28}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}")
    for name, costs in measure(contenders, given.rounds).items():
        cost = median(costs)
        print(f"{name:28}{cost.wall:8.2f}{cost.cpu:8.2f}{cost.memory / 1e6:9.0f}")


def _contender(words: Sequence[str | Path], tree: Path) -> Contender:
    command: Command = (*PUBLISHER, *words, "--repository", tree)
    return lambda work: [command]


if __name__ == "__main__":
    main()
