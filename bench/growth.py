"""`python -m bench.growth [NAME ...]`: how costs grow with what they should grow with, or not.

Each benchmark runs one command at several sizes and fits `cost = start + c * size ** exponent` to
the CPU seconds. An exponent near 1 is linear growth. Where the size should not matter at all, the
figures themselves have to be equal. A benchmark is an entry of BENCHMARKS, with a function that
prepares what its command works on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.measure import Command, Cost, measure, median
from bench.synthetic import write_image_of_files, write_images
from publisher.codec import JsonObject
from publisher.oci.digest import digest_of
from publisher.oci.media_types import OCI_CONFIG, OCI_LAYER
from publisher.repository.directory.repository import DirectoryRepository
from publisher.repository.records import RecordSet
from publisher.times import later
from publisher.tree.layout import RepositoryURL
from publisher.tree.schedule import Reason, ScheduledRemoval
from tests.layer_builder import file, image, layer_of_tar, tar, write_layout

GRACE = timedelta(days=30)
PUBLISHER = (sys.executable, "-m", "publisher")

Prepare = Callable[[Path, int], Callable[[Path], Sequence[Command]]]
"""Given a folder that stays, and a size: what to run in an empty folder. Only that is measured."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One command, measured at several sizes, counted in `unit`."""

    title: str
    unit: str
    sizes: Sequence[int]
    prepare: Prepare


@dataclass(frozen=True, slots=True)
class Fit:
    """The curve `cost = start + c * size ** exponent`; `start` is what a run costs at any size."""

    start: float
    c: float
    exponent: float

    def size_at(self, cost: float) -> float:
        """Return the size at which the curve reaches `cost`; infinite if it does not grow."""
        if self.c <= 0 or cost <= self.start:
            return math.inf
        return float(((cost - self.start) / self.c) ** (1 / self.exponent))


def fit(sizes: Sequence[float], costs: Sequence[float]) -> Fit:
    """Return the curve that fits best, by least squares.

    Its start is not negative. Needs three sizes.
    """
    largest = max(sizes)
    best, found = math.inf, Fit(0.0, 0.0, 1.0)
    for e in (step / 100 for step in range(1, 401)):
        powers = [(size / largest) ** e for size in sizes]
        start, c = _line(powers, costs)
        if start < 0:
            start, c = 0.0, sum(p * y for p, y in zip(powers, costs, strict=True))
            c /= sum(p * p for p in powers)
        error = sum((start + c * p - y) ** 2 for p, y in zip(powers, costs, strict=True))
        if error < best:
            best, found = error, Fit(start, c / largest**e, e)
    return found


def _line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Return (a, b) of the line `y = a + b * x` that fits best."""
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    b = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    b /= sum((x - x_mean) ** 2 for x in xs)
    return y_mean - b * x_mean, b


def many_layers(files: int | None) -> Prepare:
    """Publish an image of `size` layers; of `files` files in all, or else of two in each layer."""

    def prepare(folder: Path, size: int) -> Callable[[Path], Sequence[Command]]:
        layout = folder / f"layout-{size}"
        each = files // size if files else 2
        layers = [
            layer_of_tar(
                tar(*(file(f"d{n // 1000}/f{n}", b"%0100d" % n) for n in range(at, at + each)))
            )
            for at in range(0, each * size, each)
        ]
        write_layout(image(*layers), layout, "1")
        ingest = (*PUBLISHER, "ingest-image", "--quiet", f"oci:{layout}:1", "--repository")
        return lambda work: [(*ingest, work / "tree")]

    return prepare


def verified_images(folder: Path, size: int) -> Callable[[Path], Sequence[Command]]:
    """Verify the records of `size` images that share a layer."""
    tree = folder / f"images-{size}"
    write_images(tree, size)
    return lambda work: [(*PUBLISHER, "verify", "--repository", tree)]


def many_files(folder: Path, size: int) -> Callable[[Path], Sequence[Command]]:
    """Publish an image of one layer of `size` small files, a thousand in each directory."""
    layout = folder / f"files-of-a-layer-{size}"
    archive = tar(*(file(f"d{n // 1000}/f{n}", b"%0100d" % n) for n in range(size)))
    write_layout(image(layer_of_tar(archive)), layout, "1")
    ingest = (*PUBLISHER, "ingest-image", "--quiet", f"oci:{layout}:1", "--repository")
    return lambda work: [(*ingest, work / "tree")]


def found_path(pattern: str) -> Prepare:
    """Find a pattern in one image of `size` files."""

    def prepare(folder: Path, size: int) -> Callable[[Path], Sequence[Command]]:
        tree = folder / f"files-{size}"
        write_image_of_files(tree, size)
        return lambda work: [(*PUBLISHER, "find", pattern, "--repository", tree)]

    return prepare


def moved_tag(folder: Path, size: int) -> Callable[[Path], Sequence[Command]]:
    """Publish an image whose tag moved, while `size` other images are on the remove schedule."""
    layout, tree = folder / f"layout-{size}", folder / f"tree-{size}"
    command = (*PUBLISHER, "ingest-image", "--quiet", f"oci:{layout}:1", "--repository", tree)
    write_layout(image(layer_of_tar(tar(file("first", b"1")))), layout, "1")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    _fill_schedule(tree, size)
    moves = itertools.count()

    def move(work: Path) -> Sequence[Command]:
        built = image(layer_of_tar(tar(file("moved", b"%d" % next(moves)))))
        write_layout(built, layout, "1")
        return [command]

    return move


def new_image(folder: Path, size: int) -> Callable[[Path], Sequence[Command]]:
    """Publish a small image beside `size` others."""
    layout, tree = folder / f"layout-{size}", folder / f"tree-{size}"
    write_images(tree, size)
    numbers = itertools.count()

    def publish(work: Path) -> Sequence[Command]:
        number = next(numbers)
        write_layout(image(layer_of_tar(tar(file("new", b"%d" % number)))), layout, f"{number}")
        ingest = (*PUBLISHER, "ingest-image", "--quiet", f"oci:{layout}:{number}")
        return [(*ingest, "--repository", tree)]

    return publish


def _fill_schedule(tree: Path, size: int) -> None:
    """Put `size` images with ten layers each on the schedule; only their entries exist."""
    repository = DirectoryRepository(
        RepositoryURL("dir", str(tree)), writable=True, may_be_new=True
    )
    now = datetime.now(UTC).replace(microsecond=0)
    layers = [
        {"mediaType": OCI_LAYER, "digest": digest_of(b"layer %d" % n), "size": 10**6}
        for n in range(10)
    ]
    with repository.transaction("benchmark") as transaction, transaction.exclusive():
        records = RecordSet(repository)
        for number in range(size):
            name = f"registry.example.org/team/tool:{number}"
            image_id = digest_of(b"config %d" % number)
            config = {"mediaType": OCI_CONFIG, "digest": image_id, "size": 1000}
            value = {"schemaVersion": 2, "config": config, "layers": layers}
            manifest = JsonObject(json.dumps(value))
            digest = digest_of(b"manifest %d" % number)
            records.schedule.put(
                ScheduledRemoval(
                    name, name, digest, image_id, manifest, Reason.REMOVED, now, later(now, GRACE)
                )
            )
        records.write(transaction)
        transaction.commit()
    repository.close()


BENCHMARKS: Mapping[str, Benchmark] = {
    "new-files": Benchmark(
        "ingest of an image of one layer with ever more files",
        "files",
        (10_000, 30_000, 100_000, 300_000),
        many_files,
    ),
    "new-layers": Benchmark(
        "ingest of an image whose layers are all new, two files in each",
        "layers",
        (60, 125, 250, 500),
        many_layers(None),
    ),
    "split-layers": Benchmark(
        "ingest of the same 120,000 files in ever more layers",
        "layers",
        (1, 30, 60, 120),
        many_layers(120_000),
    ),
    "verify": Benchmark(
        "verify of the records of images that share a layer",
        "images",
        (1_000, 2_000, 5_000),
        verified_images,
    ),
    "find-path": Benchmark(
        "find of a whole path in one image, by a look-up in the layer index",
        "files",
        (125_000, 250_000, 500_000, 1_000_000),
        found_path("usr/lib/part-0100/file-0100500"),
    ),
    "find-name": Benchmark(
        "find of a name in one image, by a search of the layer index",
        "files",
        (125_000, 250_000, 500_000, 1_000_000),
        found_path("file-01005*"),
    ),
    "new-image": Benchmark(
        "ingest of one more image beside those that are published",
        "images",
        (1_000, 2_000, 5_000),
        new_image,
    ),
    "moved-tag": Benchmark(
        "ingest of an image whose tag moved, beside scheduled images",
        "images",
        (100, 1_000, 10_000),
        moved_tag,
    ),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.growth", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, of which the median")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to work")
    arguments = parser.parse_args()
    for name in arguments.names or BENCHMARKS:
        run(name, BENCHMARKS[name], arguments.rounds, arguments.folder)


def costs_of(benchmark: Benchmark, rounds: int, folder: Path) -> dict[int, Cost]:
    """Return the median cost at each size of a benchmark."""
    with tempfile.TemporaryDirectory(prefix="bench-growth-", dir=folder) as kept:
        contenders = {str(size): benchmark.prepare(Path(kept), size) for size in benchmark.sizes}
        measured = measure(contenders, rounds, folder)
    return {int(size): median(each) for size, each in measured.items()}


def run(name: str, benchmark: Benchmark, rounds: int, folder: Path) -> None:
    """Measure one benchmark, and print a line for each size and the exponent."""
    costs = costs_of(benchmark, rounds, folder)
    print(f"\n{name}: {benchmark.title}")
    print(f"{benchmark.unit:>12}{'wall s':>9}{'user s':>9}{'system s':>10}{'peak MB':>9}")
    for size, cost in costs.items():
        print(
            f"{size:12,}{cost.wall:9.2f}{cost.user:9.2f}{cost.system:10.2f}{cost.memory / 1e6:9.0f}"
        )
    fitted = fit(benchmark.sizes, [cost.cpu for cost in costs.values()])
    print(f"CPU seconds grow with {benchmark.unit} to the power of {fitted.exponent:.2f}")


if __name__ == "__main__":
    main()
