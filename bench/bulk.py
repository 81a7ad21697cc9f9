"""`python -m bench.bulk`: the first publication of many images that share bases.

By `publisher ingest --jobs 8`, and by skopeo and umoci in a shell loop (`xargs -P 8`), from a
docker-registry on this machine. Prints images per second and CPU per image, and how many blobs were
requested more than once.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.measure import Command, Cost, measure, median
from tests.components import Registry, docker_registry, program
from tests.layer_builder import Layer, file, image, layer_of_tar, tar, write_layout

_JOBS = 8
_BASES = 10
_PUBLISHER = "publisher ingest --jobs 8"
_LOOP = "xargs -P 8: skopeo copy, umoci unpack"


def main() -> None:
    """Publish, measure and print."""
    parser = argparse.ArgumentParser(prog="bench.bulk", description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--files", type=int, default=500, help="files of each base")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, of which the median")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to unpack")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-bulk-", dir=arguments.folder) as folder,
        docker_registry(Path(folder) / "registry") as registry,
    ):
        names = push_images(Path(folder), registry, arguments.images, arguments.files)
        wishes = Path(folder, "wishes.yaml")
        images = [{"image": f"http://{registry.host}/{name}"} for name in names]
        wishes.write_text(json.dumps({"version": 2, "images": images}))
        requested = registry.log.stat().st_size
        measure({"": lambda work: publish(wishes, work)}, 1, arguments.folder)
        repeated = _repeated(registry, requested)
        costs = measure(
            {
                _PUBLISHER: lambda work: publish(wishes, work),
                _LOOP: lambda work: loop(registry, names, work),
            },
            arguments.rounds,
            arguments.folder,
        )
    print(f"{'':40}{'images/s':>9}{'CPU ms/image':>14}{'peak MB':>9}")
    for name, each in costs.items():
        _print_row(name, median(each), arguments.images)
    print(f"blobs that the publisher requested more than once: {repeated}")


def push_images(folder: Path, registry: Registry, count: int, files: int) -> list[str]:
    """Push `count` images, each with one of ten bases and a small layer of its own."""
    bases = [_base(number, files) for number in range(min(_BASES, count))]
    layout = folder / "layout"
    names = []
    for number in range(count):
        own = layer_of_tar(tar(file(f"own/{number}", b"%d" % number)))
        write_layout(image(bases[number % len(bases)], own), layout, f"i{number}")
        names.append(f"bulk/i{number}:1")

    def push(number: int) -> None:
        registry.push(f"oci:{layout}:i{number}", names[number])

    for number in range(len(bases)):  # each base once
        push(number)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(push, range(len(bases), count)))
    return names


def _base(number: int, files: int) -> Layer:
    chance = random.Random(number)
    contents = (chance.randbytes(chance.randrange(50, 8000)) for _ in range(files))
    return layer_of_tar(tar(*(file(f"usr/f{at}", each) for at, each in enumerate(contents))))


def publish(wishes: Path, work: Path) -> list[Command]:
    """Return the command that publishes the list."""
    words = (sys.executable, "-m", "publisher", "ingest", "--quiet", wishes)
    return [(*words, "--repository", work / "tree", "--jobs", str(_JOBS))]


def loop(registry: Registry, names: list[str], work: Path) -> list[Command]:
    """Return the command by which skopeo and umoci unpack the images, eight at a time."""
    copy = f"{program('skopeo')} copy --quiet --insecure-policy --src-tls-verify=false"
    unpack = f"{program('umoci')} unpack --image"
    script = (
        f"n=$(echo $0 | tr /: --); {copy} docker://{registry.host}/$0 oci:$n-layout:x "
        f"&& {unpack} $n-layout:x $n"
    )
    (work / "names").write_text("\n".join(names))
    command = f"cd {work} && xargs -P {_JOBS} -n 1 sh -c '{script}' < names > log"
    return [("bash", "-c", command)]


def _repeated(registry: Registry, since: int) -> int:
    """Return how many blobs were requested more than once after the first `since` bytes of log."""
    log = registry.log.read_bytes()[since:].decode()
    found = re.findall(
        r'response completed.*method=GET .*uri="?\S*/blobs/(sha256:[0-9a-f]{64})', log
    )
    assert found, "the log of the registry has another form"
    return sum(number > 1 for number in Counter(found).values())


def _print_row(name: str, cost: Cost, images: int) -> None:
    per_second, cpu = images / cost.wall, cost.cpu / images * 1000
    print(f"{name:40}{per_second:9.1f}{cpu:14.1f}{cost.memory / 1e6:9.0f}")


if __name__ == "__main__":
    main()
