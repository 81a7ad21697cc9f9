"""`python -m bench.workers`: the cost of a worker process, and what several of them gain.

First, workers that unpack a layer of one file, one after the other: the time from the start to the
end of each, its processor time, and the memory that it does not share while it waits for the last
byte of its blob. Then four images of small files, published at once from an OCI layout with 0, 1,
2, … workers. From the times with one worker and with the most follow the fraction that is serial,
and what it predicts for more processors (Amdahl's law). Layout and trees are in memory, so that no
disk is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.measure import Command, Cost, measure, median
from publisher.layers.policy import Policy
from publisher.repository.directory.layer_stage import DirectoryLayerStage
from publisher.workers.job import Job
from publisher.workers.pool import Workers
from tests.layer_builder import file, image, layer, layer_of_tar, tar, write_layout

IMAGES = 4
_ALONE = 20
_PREDICTED = (8, 32)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.workers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, of which the median")
    parser.add_argument("--files", type=int, default=10_000, help="files of each image")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to work")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-workers-", dir=arguments.folder) as folder:
        _print_one_worker(Path(folder))
        wishes = write_images(Path(folder), arguments.files)
        contenders = {
            str(count): lambda work, count=count: ingest_with(wishes, count, work)
            for count in arguments.workers
        }
        costs = measure(contenders, arguments.rounds, arguments.folder)
    files = IMAGES * arguments.files
    medians = {int(count): median(each) for count, each in costs.items()}
    print(f"\n{'workers':>8}{'wall s':>9}{'CPU s':>9}{'CPU us/file':>13}")
    for count, cost in medians.items():
        print(f"{count:8}{cost.wall:9.2f}{cost.cpu:9.2f}{cost.cpu / files * 1e6:13.1f}")
    print_prediction(medians)


def _print_one_worker(folder: Path) -> None:
    small = layer(file("f", b"1"))
    job = Job(small.descriptor, small.diff_id, Policy())
    seconds: list[float] = []
    memory: list[int] = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with Workers(1, {"PATH": os.environ["PATH"]}) as workers:

        def unpack(name: str, chunks: Iterable[bytes]) -> None:
            stage = DirectoryLayerStage(folder / name, folder / "kept", "a layer")
            began = time.monotonic()
            workers.unpack(stage, chunks, job)
            seconds.append(time.monotonic() - began)

        def slow_chunks() -> Iterator[bytes]:
            yield small.blob[:1]  # arrives before the worker is started
            running = workers._server._running
            assert running is not None
            server = running[1].pid
            [pid] = Path(f"/proc/{server}/task/{server}/children").read_text().split()
            yield small.blob[1:-1]
            time.sleep(1)  # until it has unpacked what it has
            memory.append(_private_bytes(int(pid)))
            yield small.blob[-1:]

        for number in range(_ALONE + 1):
            unpack(str(number), small.chunks())
        unpack("slow", slow_chunks())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"the first worker, with its server: {seconds[0] * 1000:.0f} ms; each further one: "
        f"{statistics.median(seconds[1:-1]) * 1000:.1f} ms (median of {_ALONE}), "
        f"{memory[0] / 1e6:.1f} MB of its own; the server and {len(seconds)} workers: "
        f"{cpu:.2f} s of CPU"
    )


def _private_bytes(pid: int) -> int:
    """Return the memory that the process does not share."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def write_images(folder: Path, count: int) -> Path:
    """Return a wish list of IMAGES images with `count` files each, in an OCI layout."""
    for number in range(IMAGES):
        contents = (b"%d %0100d" % (number, n) for n in range(count))
        archive = tar(*(file(f"d{n // 1000}/f{n}", each) for n, each in enumerate(contents)))
        write_layout(image(layer_of_tar(archive)), folder / "layout", str(number))
    images = [
        {"image": f"oci:{folder}/layout:{number}", "name": f"bench/{number}"}
        for number in range(IMAGES)
    ]
    wishes = folder / "wishes.yaml"
    wishes.write_text(json.dumps({"version": 2, "images": images}))
    return wishes


def ingest_with(wishes: Path, count: int, work: Path) -> list[Command]:
    """Return the command that publishes the list with `count` workers."""
    words = (sys.executable, "-m", "publisher", "ingest", "--quiet", wishes)
    return [(*words, "--repository", work / "tree", "--workers", str(count))]


def print_prediction(medians: dict[int, Cost]) -> None:
    """Print the serial fraction, by the wall times with one worker and with the most."""
    most = max(medians)
    if 1 not in medians or most < 2:
        return
    one, several = medians[1].wall, medians[most].wall
    parallel = (one - several) / (1 - 1 / most)
    serial = one - parallel
    print(f"\nserial: {serial:.2f} s of {one:.2f} s with one worker ({serial / one:.0%})")
    for count in _PREDICTED:
        seconds = serial + parallel / count
        print(f"predicted for {count} processors and as many images at once: {seconds:.2f} s")


if __name__ == "__main__":
    main()
