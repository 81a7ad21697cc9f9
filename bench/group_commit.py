"""What does a group commit save? Small images in one run, with and without it, in both backends.

    python -m bench.group_commit [--images N] [--rounds N]

The images share their base and are in an OCI layout; the CVMFS repository is that of the stand-in,
whose own time is part of the figures. Prints medians, also of the number of commits.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from bench.measure import Contender, measure, median
from tests.any_repository import KINDS, make_repository
from tests.layer_builder import directory, file, image, layer, write_layout


def main() -> None:
    """Publish, measure and print."""
    parser = argparse.ArgumentParser(prog="bench.group_commit", description=__doc__)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, of which the median")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-group-") as work:
        wishes = make_list(Path(work), arguments.images)
        ways = {
            f"{kind}, --group {group}": publishing(kind, group, wishes)
            for kind in KINDS
            for group in (1, 16)
        }
        costs = measure(ways, arguments.rounds)
        commits = {
            name: [int(line) for line in wishes.with_name(name).read_text().split()]
            for name in ways
        }
    print(f"{'':24} {'wall s':>7} {'CPU s':>7} {'commits':>8}")
    for name, each in costs.items():
        cost = median(each)
        number = statistics.median(commits[name])
        print(f"{name:24} {cost.wall:7.2f} {cost.cpu:7.2f} {number:8.0f}")


def make_list(folder: Path, number: int) -> Path:
    """Return a wish list of `number` images, which share their lower layer."""
    base = layer(directory("etc"), file("etc/motd", b"hello"))
    lines = ["version: 2", "images:"]
    for each in range(number):
        built = image(base, layer(file(f"own/{each}", b"%d" % each)))
        write_layout(built, folder / "layout", f"i{each}")
        lines.append(f"- {{image: 'oci:{folder}/layout:i{each}', name: i{each}}}")
    wishes = folder / "wishlist.yaml"
    wishes.write_text("\n".join(lines) + "\n")
    return wishes


def publishing(kind: str, group: int, wishes: Path) -> Contender:
    """Return the commands that publish the list to a new repository, and count its commits."""

    def contender(folder: Path) -> list[tuple[str | Path, ...]]:
        place = make_repository(kind, folder)
        variables = [f"{key}={value}" for key, value in place.env.items()]
        options = ("--jobs", "8", "--group", str(group), "--repository", place.url)
        count = (
            "import sys; from pathlib import Path; "
            "print(len(Path(sys.argv[1]).read_text().splitlines()), file=open(sys.argv[2], 'a'))"
        )
        numbers = wishes.with_name(f"{kind}, --group {group}")
        history = place.state / "history.jsonl"
        return [
            ("env", *variables, sys.executable, "-m", "publisher", "ingest", wishes, *options),
            (sys.executable, "-c", count, history, numbers),
        ]

    return contender


if __name__ == "__main__":
    main()
