"""`python -m bench.unpack`: what it costs to get an image from a registry onto the disk.

Four images: (a) a scientific one of about 170 MB, (b) 40,000 small files, (c) one file of 1 GB, and
(d) the first with zstd layers. Each is published, and got by what one would use instead, in turn,
from a docker-registry on this machine. Prints tables and writes build/unpack.json.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from bench.__main__ import layer_files
from bench.measure import Command, Contender, Cost, measure, median
from tests.components import Registry, docker_registry, program, run
from tests.debian import cached
from tests.layer_builder import Layer, file, image, layer_of_tar, tar, write_layout
from tests.real_image import build_real_images

RESULT = Path(__file__).parents[1] / "build/unpack.json"
RECIPE = 1
SCIENCE = ("numpy", "scipy", "pandas", "matplotlib", "scikit-learn")
IMAGES = {
    "science": "(a) a scientific image",
    "small": "(b) 40,000 small files",
    "large": "(c) one file of 1 GB",
    "science-zstd": "(d) the scientific image, zstd",
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="bench.unpack", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, of which the median")
    parser.add_argument("--images", nargs="+", choices=list(IMAGES), default=list(IMAGES))
    parser.add_argument("--folder", type=Path, help="where to unpack; without it, a temporary one")
    arguments = parser.parse_args()
    layout = cached("bench-images", RECIPE, build_images) / "layout"
    figures: dict[str, object] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-registry-"))
        registry = stack.enter_context(docker_registry(Path(folder)))
        for tag in arguments.images:
            registry.push(f"oci:{layout}:{tag}", f"bench:{tag}", "--preserve-digests")
            costs = measure(contenders(registry, layout, tag), arguments.rounds, arguments.folder)
            size = sum(blob.stat().st_size for blob in layer_files(layout, tag))
            print(f"\n{IMAGES[tag]}: {size / 1e6:.0f} MB compressed")
            print_table(costs)
            figures[tag] = {name: [asdict(cost) for cost in each] for name, each in costs.items()}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"rounds": arguments.rounds, "costs": figures}, indent=1))
    print(f"\nall figures: {RESULT}")


def contenders(registry: Registry, layout: Path, tag: str) -> dict[str, Contender]:
    """Return the compared programs for one image."""
    reference = f"{registry.host}/bench:{tag}"
    blobs = layer_files(layout, tag)
    urls = [f"{registry.url}/v2/bench/blobs/sha256:{blob.name}" for blob in blobs]
    is_zstd = tag.endswith("-zstd")

    def publish(folder: Path) -> list[Command]:
        publisher = (sys.executable, "-m", "publisher", "ingest-image", "--quiet")
        return [(*publisher, f"http://{reference}", "--repository", folder / "tree")]

    def copy_and_unpack(folder: Path) -> list[Command]:
        copy = (program("skopeo"), "copy", "--quiet", "--insecure-policy", "--src-tls-verify=false")
        source, target = f"docker://{reference}", f"oci:{folder}/layout:x"
        return [
            (*copy, source, target),
            (program("umoci"), "unpack", "--image", f"{folder}/layout:x", folder / "bundle"),
        ]

    def pull(folder: Path) -> list[Command]:
        storage = ("--root", folder / "root", "--runroot", folder / "run")
        pull = ("pull", "--quiet", "--tls-verify=false", reference)
        return [(program("podman"), *storage, *pull)]

    def pipeline(*decompress: str) -> Contender:
        return lambda folder: [("bash", "-c", _script(urls, decompress), "bash", str(folder))]

    def sum_and_untar(folder: Path) -> list[Command]:
        return [("sha256sum", *blobs), *(("tar", "-xzf", blob, "-C", folder) for blob in blobs)]

    found: dict[str, Contender] = {"publisher ingest-image": publish}
    if not is_zstd:
        found["skopeo copy, umoci unpack"] = copy_and_unpack
    found["podman pull"] = pull
    if is_zstd:
        found["curl | tee >(sha256sum) | zstd | tar"] = pipeline("zstd", "-dc")
    else:
        found["curl | tee >(sha256sum) | tar -xz"] = pipeline("gzip", "-dc")
        found["curl | tee >(sha256sum) | igzip | tar"] = pipeline(program("igzip"), "-dc")
        found["sha256sum, tar -xzf (no network)"] = sum_and_untar
    return found


def _script(urls: Sequence[str], decompress: Sequence[str]) -> str:
    """Return the script that unpacks each layer into a directory of its own, with its digest."""
    lines = ["set -euo pipefail", 'cd "$1"']
    for number, url in enumerate(urls):
        lines += [
            f"mkdir {number}",
            f"curl -sf {url} | tee >(sha256sum > {number}.sum) | {' '.join(decompress)} "
            f"| tar -xf - -C {number}",
        ]
    return "\n".join([*lines, "wait"])


def print_table(costs: Mapping[str, list[Cost]]) -> None:
    """Print medians, and the ratio of the publisher's to each."""
    own = median(costs["publisher ingest-image"])
    print(f"{'':38}{'wall s':>8}{'':>7}{'user s':>8}{'':>7}{'system s':>9}{'peak MB':>9}")
    for name, each in costs.items():
        cost = median(each)
        print(
            f"{name:38}{cost.wall:8.2f}{own.wall / cost.wall:6.2f}x{cost.user:8.2f}"
            f"{own.user / cost.user:6.2f}x{cost.system:9.2f}{cost.memory / 1e6:9.0f}"
        )
    print("(x: the publisher's figure divided by this one)")


def build_images(folder: Path) -> None:
    """Write all four images, as tags of one OCI layout."""
    layout = folder / "layout"
    base = [
        subprocess.run(["gzip", "-dc", blob], stdout=subprocess.PIPE, check=True).stdout
        for blob in layer_files(build_real_images().layout, "python")
    ]
    archives = [*base, _science(folder)]
    for tag, compression in (("science", "gzip"), ("science-zstd", "zstd")):
        layers = [layer_of_tar(archive, compression=compression) for archive in archives]  # type: ignore[arg-type]
        write_layout(image(*layers), layout, tag)
    write_layout(image(_small()), layout, "small")
    write_layout(image(_large()), layout, "large")


def _science(folder: Path) -> bytes:
    packages = folder / "packages"
    run(sys.executable, "-m", "pip", "install", "-q", "--target", packages, *SCIENCE)
    archive = folder / "packages.tar"
    run("tar", "-C", packages, "-cf", archive, ".")
    data = archive.read_bytes()
    archive.unlink()
    run("rm", "-rf", packages)
    return data


def _small() -> Layer:
    chance = random.Random(1)
    members = [
        file(f"d{number // 200}/f{number}", chance.randbytes(chance.randrange(50, 4000)))
        for number in range(40_000)
    ]
    return layer_of_tar(tar(*members))


def _large() -> Layer:
    # half of it is noise and half repeats, as data files do
    chance = random.Random(2)
    pieces = [chance.randbytes(65536) + bytes(65536) for _ in range(2**30 // 131072)]
    return layer_of_tar(tar(file("large", b"".join(pieces))))


if __name__ == "__main__":
    main()
