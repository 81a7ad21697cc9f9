"""`python -m bench.entries`: how time and memory grow with the number of files in one layer.

Publishes images of one layer each with ever more small files (1,000 in a directory), from an OCI
layout. Their tree, and the layout, lie in memory: the disk's share grows with the disk.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.measure import Command, measure, median
from tests.layer_builder import file, image, layer_of_tar, tar, write_layout


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.entries", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, of which the median")
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to work")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-layout-", dir=arguments.folder) as folder:
        for count in arguments.entries:
            archive = tar(*(file(f"d{n // 1000}/f{n}", b"%0100d" % n) for n in range(count)))
            write_layout(image(layer_of_tar(archive)), Path(folder), str(count))
            del archive
        contenders = {
            str(count): lambda work, count=count: _publish(Path(folder), count, work)
            for count in arguments.entries
        }
        costs = measure(contenders, arguments.rounds, arguments.folder)
    print(
        f"{'files':>10}{'wall s':>9}{'user s':>9}{'system s':>10}{'CPU us/file':>13}{'peak MB':>9}"
    )
    for count, each in costs.items():
        cost = median(each)
        print(
            f"{int(count):10,}{cost.wall:9.2f}{cost.user:9.2f}{cost.system:10.2f}"
            f"{cost.cpu / int(count) * 1e6:13.1f}{cost.memory / 1e6:9.0f}"
        )


def _publish(layout: Path, count: int, work: Path) -> list[Command]:
    publisher = (sys.executable, "-m", "publisher", "ingest-image", "--quiet")
    return [(*publisher, f"oci:{layout}:{count}", "--repository", work / "tree")]


if __name__ == "__main__":
    main()
