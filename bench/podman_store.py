"""Does adding one image to Podman's store cost more when the store has more images?

    python -m bench.podman_store [--json FILE]

Publishes 10 small images, then times the publication of one more; the same at 100 and at 1,000,
alternating `outputs: [flat, podman]` with `[flat]`, so that the difference is what the store costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from publisher.ingest.run import ingest
from publisher.oci.reference import parse_reference
from publisher.repository.directory.repository import DirectoryRepository
from publisher.sources.open import Sources
from publisher.tree.layout import RepositoryURL
from publisher.wishlist import Wish
from publisher.wishlist.model import Request
from tests.layer_builder import Layer, file, image, layer, write_layout

SIZES = (10, 100, 1000)
SAMPLES = 15


def main() -> None:
    """Measure, print a table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = measure()
    print(f"{'images':>7}  {'flat':>9}  {'flat+podman':>12}  {'images.json':>12}")
    for row in rows:
        print(
            f"{row['images']:>7}  {row['flat_ms']:>6.1f} ms  {row['podman_ms']:>9.1f} ms  "
            f"{row['images_json_bytes']:>10} B"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"podman_store": rows}, indent=1) + "\n")


def measure() -> list[dict[str, float]]:
    """For each size: medians of the milliseconds that one more image takes."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="publisher-bench-") as name:
        folder = Path(name)
        trees = {outputs: folder / "-".join(outputs) for outputs in (FLAT, PODMAN)}
        base = layer(file("base", b"base"))
        count = 0
        for size in SIZES:
            new = [_write(folder, base, number) for number in range(count, size)]
            for outputs, tree in trees.items():
                _publish(tree, new, outputs)
            count = size
            samples: dict[tuple[str, ...], list[float]] = {outputs: [] for outputs in trees}
            for _ in range(SAMPLES):
                one = _write(folder, base, count)
                count += 1
                for outputs, tree in trees.items():
                    samples[outputs].append(_publish(tree, [one], outputs))
            lists = trees[PODMAN] / "podmanStore/overlay-images/images.json"
            rows.append(
                {
                    "images": size,
                    "flat_ms": statistics.median(samples[FLAT]) * 1000,
                    "podman_ms": statistics.median(samples[PODMAN]) * 1000,
                    "images_json_bytes": lists.stat().st_size,
                }
            )
    return rows


FLAT = ("flat",)
PODMAN = ("flat", "podman", "layers")


def _write(folder: Path, base: Layer, number: int) -> str:
    built = image(base, layer(file("number", str(number).encode())), config={"Cmd": ["/x"]})
    layout = folder / "layouts" / str(number)
    layout.mkdir(parents=True)
    return f"oci:{write_layout(built, layout, '1')}:1"


def _publish(tree: Path, images: list[str], outputs: tuple[str, ...]) -> float:
    """Return the seconds that publishing these images takes."""
    wishes = [
        Request(Wish(parse_reference(text), outputs=outputs, name=f"n{Path(text[4:-2]).name}"))
        for text in images
    ]
    repository = DirectoryRepository(
        RepositoryURL("dir", str(tree)), writable=True, may_be_new=True
    )
    try:
        with Sources() as sources:
            began = time.perf_counter()
            report = ingest(wishes, repository, sources, jobs=2)
            seconds = time.perf_counter() - began
    finally:
        repository.close()
    if report.failed:
        raise SystemExit(report.failed[0].error)
    return seconds


if __name__ == "__main__":
    main()
