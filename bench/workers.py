"""`python -m bench.workers`: the cost of a worker process, and what several of them gain.

First, workers that unpack a layer of one file, one after the other: the time from the start to the
end of each, its processor time, and the memory that it does not share while it waits for the last
byte of its blob. Then four images of small files, published at once from an OCI layout with 0, 1,
2, … workers. At last the processor time of the publisher's own process, which one processor does,
in a run with so many workers that they also link the flat images; the workers do the rest, and
what that predicts for more processors (Amdahl's law). Layout and trees are in memory, so that no
disk is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from bench.measure import Command, measure, median
from publisher.cli.repositories import MANY_WORKERS
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
        print_prediction(wishes, Path(folder), arguments.rounds)


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


def print_prediction(wishes: Path, folder: Path, rounds: int) -> None:
    """Print the processor time of the publisher's own process, and of its workers."""
    for count, what in ((2, "by the publisher"), (MANY_WORKERS, "by workers")):
        costs = [
            _own_and_all(wishes, count, folder / f"own-{count}-{number}")
            for number in range(rounds)
        ]
        own = statistics.median(each[0] for each in costs)
        total = statistics.median(each[1] for each in costs)
        print(
            f"\n--workers {count}, flat images linked {what}: {own:.2f} of {total:.2f} CPU seconds "
            f"in the publisher's process ({own / total:.0%})"
        )
        for processors in _PREDICTED:
            seconds = own + (total - own) / processors
            print(f"predicted for {processors} processors: {seconds:.2f} s")


def _own_and_all(wishes: Path, count: int, work: Path) -> tuple[float, float]:
    """Return the CPU seconds of the process that publishes the list, and of all its processes."""
    work.mkdir()
    [command] = ingest_with(wishes, count, work)
    before = os.times()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    own = 0.0
    while process.poll() is None:
        with suppress(OSError):
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            own = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
        time.sleep(0.005)
    assert process.returncode == 0
    after = os.times()
    children = after.children_user - before.children_user
    return own, children + after.children_system - before.children_system


if __name__ == "__main__":
    main()
