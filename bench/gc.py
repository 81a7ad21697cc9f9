"""`python -m bench.gc`: does removing one image cost more where there are many?

Two repositories are made by code: one of 20 images, one of 2,000, each image of five layers of its
own and one that all share. Then images are scheduled and collected, one by one and alternating
between the two, and the time of each is taken: on the clock, and of the processor, which other
programs disturb less. The same is printed for a dry run.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from publisher.ingest.run import ingest
from publisher.removal.gc import choose, collect
from publisher.removal.schedule import remove
from publisher.repository.directory.repository import DirectoryRepository
from publisher.sources.open import Sources
from publisher.tree.layout import RepositoryURL
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.layer_builder import Layer, directory, file, image, layer, write_layout

Times = tuple[float, float]

OWN_LAYERS = 5
BASE = layer(directory("etc"), file("etc/os-release", b"shared by all"))


def main() -> None:
    """Build, measure and print."""
    parser = argparse.ArgumentParser(prog="bench.gc", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 2000], help="images")
    parser.add_argument("--rounds", type=int, default=15, help="images collected of each")
    parser.add_argument("--folder", type=Path, help="where to build; without it, a temporary one")
    arguments = parser.parse_args()
    if arguments.rounds >= min(arguments.sizes):
        parser.error("the last image would take the shared layer along")
    with tempfile.TemporaryDirectory(prefix="bench-gc-", dir=arguments.folder) as folder:
        repositories = {}
        for size in arguments.sizes:
            began = time.perf_counter()
            repositories[size] = build(Path(folder), size)
            layers = size * OWN_LAYERS + 1
            print(f"{size} images, {layers} layers: made in {time.perf_counter() - began:.0f} s")
        results = measure(repositories, arguments.rounds)
        for repository in repositories.values():
            repository.close()
    print_table(results)


def build(folder: Path, size: int) -> DirectoryRepository:
    """A repository of `size` images."""
    root = folder / f"tree-{size}"
    repository = DirectoryRepository(
        RepositoryURL("dir", str(root)), writable=True, may_be_new=True
    )
    with Sources() as sources:
        for first in range(0, size, 50):
            layout = folder / f"layout-{size}"
            numbers = range(first, min(size, first + 50))
            for number in numbers:
                write_layout(image(BASE, *own_layers(number)), layout, str(number))
            requests = [
                Request(wish_for(f"oci:{layout}:{number}", name="app")) for number in numbers
            ]
            report = ingest(requests, repository, sources, jobs=1)
            assert not report.failed, report.failed[0].error
            shutil.rmtree(layout)
    return repository


def own_layers(number: int) -> list[Layer]:
    """Return five small layers that no other image has."""
    return [layer(file(f"data/{number}-{part}", b"x" * 100)) for part in range(OWN_LAYERS)]


def measure(
    repositories: dict[int, DirectoryRepository], rounds: int
) -> dict[str, dict[int, list[Times]]]:
    """Return the times of every step, by step and by the repository's number of images."""
    results: dict[str, dict[int, list[Times]]] = {
        step: {size: [] for size in repositories} for step in ("schedule", "dry run", "collect")
    }
    for number in range(rounds):
        for size, repository in repositories.items():
            name = f"local/app:{number}"
            moments = [moment()]
            remove(repository, [name], now)
            moments.append(moment())
            choice = choose(repository, at_once=True, image=name)
            foreseen = collect(repository, choice, now, dry_run=True)
            moments.append(moment())
            report = collect(repository, choice, now)
            moments.append(moment())
            assert report == foreseen and report.layers == OWN_LAYERS
            for step, (before, after) in zip(results, pairwise(moments), strict=True):
                results[step][size].append((after[0] - before[0], after[1] - before[1]))
    return results


def moment() -> Times:
    """Seconds on the clock, and CPU seconds of this process."""
    return time.perf_counter(), time.process_time()


def now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


def print_table(results: dict[str, dict[int, list[Times]]]) -> None:
    """Print median and range of each, in milliseconds."""
    print(f"\n{'':20}" + "".join(f"{f'{size} images':>28}" for size in results["collect"]))
    for step, by_size in results.items():
        for number, kind in enumerate(("", "processor")):
            cells = []
            for times in by_size.values():
                each = sorted(pair[number] * 1000 for pair in times)
                middle = statistics.median(each)
                cells.append(f"{middle:8.1f} ms ({each[0]:.1f} to {each[-1]:.1f})")
            print(f"{step:10}{kind:10}" + "".join(f"{cell:>28}" for cell in cells))


if __name__ == "__main__":
    main()
