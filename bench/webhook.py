"""How long does it take from a push until the image is published, by a webhook?

    python -m bench.webhook [--rounds N] [--size MB]

A docker-registry notifies `publisher serve` of pushes. Each round pushes a new image, of one layer
that cannot be compressed, and prints the seconds from the end of the push until its public name
exists, and what of them the job took.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import yaml

from tests.components import docker_registry
from tests.layer_builder import file, image, layer, write_layout
from tests.service import AskedJobs, HostProcess, eventually, running_host

_SECRET = "bench-secret-0123456789"
_PAUSE = 0.005


def main() -> None:
    """Push, measure and print."""
    parser = argparse.ArgumentParser(prog="bench.webhook", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="pushes that are measured")
    parser.add_argument("--size", type=float, default=0.1, help="size of each image in MB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-webhook-") as work:
        _measure(Path(work), options.rounds, int(options.size * 1e6))


def _measure(folder: Path, rounds: int, size: int) -> None:
    wishes, secret, images = folder / "wishes.yaml", folder / "secret", folder / "images"
    secret.write_text(_SECRET)
    lists = {"bench": {"source": str(wishes)}}
    repositories = {"images": {"url": f"dir:{images}", "lists": lists}}
    host = HostProcess("serve", folder / "host", {"repositories": repositories})
    address = f"http://127.0.0.1:{host.port}/hooks/own"
    with docker_registry(folder / "registry", notified={address: f"Bearer {_SECRET}"}) as registry:
        hook = {"kind": "distribution", "secret-file": str(secret), "registry": registry.host}
        host.write(hooks={"own": hook})
        requested = [f"http://{registry.host}/bench/app:*"]
        wishes.write_text(yaml.safe_dump({"version": 2, "images": requested}))
        with running_host(host):
            eventually(lambda: host.status("/readyz") == 200)
            asked = AskedJobs(f"sqlite:///{folder}/host/state/jobs.sqlite")
            seconds = []
            print(f"{'push':>5} {'published after':>16} {'of that, the job':>17}")
            for number in range(rounds):
                layout = folder / f"layout{number}"
                write_layout(image(layer(file("data", os.urandom(size)))), layout, "1")
                registry.push(f"oci:{layout}:1", f"bench/app:{number}")
                began = time.monotonic()
                name = images / registry.host / f"bench/app:{number}"
                while not name.exists():
                    time.sleep(_PAUSE)
                seconds.append(time.monotonic() - began)
                [newest, *_] = asked.jobs.list().jobs
                job = asked.end_of(newest)
                assert job.started and job.ended
                took = (job.ended - job.started).total_seconds()
                print(f"{number + 1:5} {seconds[-1]:14.2f} s {took:15.2f} s")
    print(f"median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
