"""`make bench`: publishing an image, compared with other programs on the same image.

The image is the tests' own (Debian, Python, numpy), in a registry on this machine. Prints a table,
and writes all figures to build/bench.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from bench.measure import Command, Contender, Cost, measure, median
from tests.components import Registry, docker_registry, program
from tests.layer_builder import digest_of
from tests.real_image import build_real_images

RESULT = Path(__file__).parents[1] / "build/bench.json"
BASELINE = "skopeo copy, umoci unpack"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, of which the median")
    rounds = parser.parse_args().rounds
    images = build_real_images()
    with (
        tempfile.TemporaryDirectory(prefix="bench-registry-") as folder,
        docker_registry(Path(folder)) as registry,
    ):
        for tag in ("numpy", "numpy-zstd"):
            registry.push(images.source(tag), f"bench:{tag}", "--preserve-digests")
        costs = measure(contenders(registry, images.layout), rounds)
    print_table(costs)
    RESULT.parent.mkdir(exist_ok=True)
    document = {name: [asdict(cost) for cost in each] for name, each in costs.items()}
    RESULT.write_text(json.dumps({"rounds": rounds, "costs": document}, indent=1))
    print(f"\nall figures: {RESULT}")


def contenders(registry: Registry, layout: Path) -> dict[str, Contender]:
    """Return the compared programs: all leave a root file system; the last is a lower bound."""
    reference = f"{registry.host}/bench:numpy"
    blobs = layer_files(layout, "numpy")
    skopeo, umoci, podman = program("skopeo"), program("umoci"), program("podman")
    publisher = (sys.executable, "-m", "publisher", "ingest-image", "--quiet")

    def publish(tag: str) -> Contender:
        return lambda folder: [
            (*publisher, f"http://{registry.host}/bench:{tag}", "--repository", folder / "tree")
        ]

    def copy_and_unpack(folder: Path) -> list[Command]:
        source, target = f"docker://{reference}", f"oci:{folder}/layout:x"
        copy = (skopeo, "copy", "--quiet", "--insecure-policy", "--src-tls-verify=false")
        return [
            (*copy, source, target),
            (umoci, "unpack", "--image", f"{folder}/layout:x", folder / "bundle"),
        ]

    def pull(folder: Path) -> list[Command]:
        storage = ("--root", folder / "root", "--runroot", folder / "run")
        return [(podman, *storage, "pull", "--quiet", "--tls-verify=false", reference)]

    def untar(folder: Path) -> list[Command]:
        for number, _ in enumerate(blobs):
            (folder / str(number)).mkdir()
        return [
            ("tar", "-xzf", blob, "-C", folder / str(number)) for number, blob in enumerate(blobs)
        ]

    return {
        "publisher ingest-image": publish("numpy"),
        "publisher ingest-image, zstd": publish("numpy-zstd"),
        BASELINE: copy_and_unpack,
        "podman pull": pull,
        "tar -xzf (no network, no checks)": untar,
        "sha256sum (reads only)": lambda folder: [("sha256sum", *blobs)],
    }


def layer_files(layout: Path, tag: str) -> list[Path]:
    """Return the files of a layout that hold the layers of one tag, bottom to top."""

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    for entry in json.loads((layout / "index.json").read_bytes())["manifests"]:
        if entry["annotations"]["org.opencontainers.image.ref.name"] == tag:
            manifest = blob(entry["digest"]).read_bytes()
            assert digest_of(manifest) == entry["digest"]
            return [blob(layer["digest"]) for layer in json.loads(manifest)["layers"]]
    raise KeyError(tag)


def print_table(costs: Mapping[str, list[Cost]]) -> None:
    """Print medians, and their ratio to those of skopeo and umoci."""
    baseline = median(costs[BASELINE])
    print(f"{'':34}{'wall s':>8}{'':>7}{'CPU s':>8}{'':>7}{'peak MB':>9}")
    for name, each in costs.items():
        cost = median(each)
        print(
            f"{name:34}{cost.wall:8.2f}{cost.wall / baseline.wall:6.2f}x"
            f"{cost.cpu:8.2f}{cost.cpu / baseline.cpu:6.2f}x{cost.memory / 1e6:9.0f}"
        )


if __name__ == "__main__":
    main()
