"""`python -m bench.snapshotter`: what a snapshotter costs, per request and in memory.

An image of twelve layers is published; a client over gRPC then does what containerd does for an
image and for its containers. For each method: the time on the client's clock, the time of the
server's processor, medians; at the end the memory of the server. Nothing is mounted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from publisher.oci.chain import chain_ids
from tests.command import succeed
from tests.layer_builder import Image, file, image, layer, write_layout
from tests.snapshotter import Client, Refused, running

RESULT = Path(__file__).parents[1] / "build/bench-snapshotter.json"
LAYERS = 12
TICK = 1 / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="bench.snapshotter", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="requests of each kind")
    parser.add_argument("--images", type=int, default=20, help="images of twelve layers each")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-snapshotter-") as name:
        folder = Path(name)
        images = [build(number) for number in range(arguments.images)]
        publish(folder, images)
        with running(folder, folder / "tree") as (process, client):
            figures = measure(client, process.pid, images, arguments.rounds)
            figures["memory, MB"] = {"clock": memory(process.pid)}
    for what, row in figures.items():
        clock, processor = row["clock"], row.get("processor")
        print(f"{what:<40} {clock:8.2f}" + (f" {processor:8.2f}" if processor is not None else ""))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=1))
    print(f"\nmilliseconds on the clock and of the server's processor; all figures: {RESULT}")


def build(number: int) -> Image:
    """An image, half of whose layers all images share."""
    shared = (layer(file(f"shared/{n}", b"x")) for n in range(LAYERS // 2))
    own = (layer(file(f"own/{n}", b"%d" % number)) for n in range(LAYERS - LAYERS // 2))
    return image(*shared, *own)


def publish(folder: Path, images: list[Image]) -> None:
    """Publish them in one run."""
    for number, each in enumerate(images):
        write_layout(each, folder / "image", str(number))
    wishes = [f"oci:{folder}/image:{number}" for number in range(len(images))]
    (folder / "wishes.yaml").write_text(json.dumps({"version": 2, "images": wishes}))
    succeed("ingest", folder / "wishes.yaml", "--repository", folder / "tree")


def measure(
    client: Client, pid: int, images: list[Image], rounds: int
) -> dict[str, dict[str, float]]:
    """Return the medians of each kind of request."""
    tops: list[str] = []

    def unpack(number: int) -> None:
        parent = ""
        for chain in chain_ids([each.diff_id for each in images[number].layers]):
            try:
                client.prepare_layer(f"extract-{number}-{chain}", parent, chain)
            except Refused as refused:
                assert refused.code == "ALREADY_EXISTS"
            (parent,) = client.list(f'labels."containerd.io/snapshot.ref"=={chain}')
        tops.append(parent)

    per_image = timed(pid, len(images), unpack)
    return {
        f"pull of {LAYERS} published layers": per_image,
        "Prepare": timed(pid, rounds, lambda n: client.prepare(f"c-{n}", tops[n % len(tops)])),
        "Mounts": timed(pid, rounds, lambda n: client.mounts(f"c-{n}")),
        "Stat": timed(pid, rounds, lambda n: client.stat(f"c-{n}")),
        "Usage": timed(pid, rounds, lambda n: client.usage(f"c-{n}")),
        "Remove": timed(pid, rounds, lambda n: client.remove(f"c-{n}")),
    }


def timed(pid: int, rounds: int, request: Callable[[int], object]) -> dict[str, float]:
    """Return the median on the clock, and the mean of the server's processor, in milliseconds."""
    before = processor_time(pid)
    times = []
    for number in range(rounds):
        began = time.perf_counter()
        request(number)
        times.append(time.perf_counter() - began)
    used = processor_time(pid) - before
    return {"clock": 1000 * statistics.median(times), "processor": 1000 * used / rounds}


def processor_time(pid: int) -> float:
    """Return the seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def memory(pid: int) -> float:
    """Return the most memory that a process has had, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
