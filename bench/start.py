"""How long does the first output of a published image take, and how many bytes does a start fetch?

    tests/engines.sh run python -m bench.start [--rounds N] [--megabytes N] [--json FILE]

Publishes an image of 1 GB in ten layers, from a registry on this machine, and starts `echo` in it
with today's engines: by pulling, and in every form in which it is published. Each start has an
engine without images or layers; its daemon runs already. Prints medians. `network` has all bytes
that the loopback carried meanwhile, headers and requests included; `tests/engines.sh` gives this
program a loopback of its own. The last rows compare the runtime for thin images with runc, for a
container of an ordinary image and of a thin one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from publisher.runtimes import oci_runtime
from tests.command import succeed
from tests.components import (
    Engine,
    Registry,
    containerd,
    docker_registry,
    dockerd,
    podman,
    unmount_below,
)
from tests.layer_builder import directory, file, image, layer, write_layout
from tests.probe import probe_image
from tests.snapshotter import running

Words = Sequence[str | Path]
LAYERS = 10
FILE_BYTES = 500_000
PROGRAM = ("/bin/sh", "-c", "echo started")


@dataclass(frozen=True, slots=True)
class World:
    """The published image: in a registry, in the tree, as a thin image; a place for engines."""

    folder: Path
    tree: Path
    registry: Registry

    @property
    def original(self) -> str:
        """The image as it was pushed."""
        return f"{self.registry.host}/big:1"

    @property
    def thin(self) -> str:
        """Its thin image."""
        return f"{self.registry.host}/thin/big:1"


@dataclass(frozen=True, slots=True)
class Cost:
    """One start: seconds to the first output; bytes of the registry and of the network."""

    seconds: float
    fetched: int
    network: int


def main() -> None:
    """Measure, print a table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bs-", dir="/tmp"))
    try:
        with docker_registry(folder / "registry") as registry:
            world = publish(folder, registry, arguments.megabytes)
            costs = measure(world, arguments.rounds)
            overhead = measure_runtime(world, 4 * arguments.rounds)
    finally:
        unmount_below(folder)
        shutil.rmtree(folder)
    print(f"{'engine and form':32} {'first output':>12} {'fetched':>16} {'network':>16}")
    for name, each in costs.items():
        seconds = statistics.median(cost.seconds for cost in each)
        fetched = max(cost.fetched for cost in each)
        network = max(cost.network for cost in each)
        print(f"{name:32} {seconds:>10.2f} s {fetched:>14,} B {network:>14,} B")
    for name, milliseconds in overhead.items():
        print(f"{name:32} {milliseconds:>9.0f} ms")
    if arguments.json:
        document = {name: [asdict(cost) for cost in each] for name, each in costs.items()}
        arguments.json.write_text(json.dumps({"starts": document, "create_ms": overhead}, indent=1))


def publish(folder: Path, registry: Registry, megabytes: int) -> World:
    """Make the image, of files that do not compress, and publish it in every form."""
    count = max(megabytes * 1_000_000 // LAYERS // FILE_BYTES, 1)
    layers = [
        layer(
            directory(f"data{number}"),
            *(file(f"data{number}/{n}", os.urandom(FILE_BYTES)) for n in range(count)),
        )
        for number in range(LAYERS)
    ]
    targets = layer(directory("run"), file("etc/hostname"))
    built = image(
        *probe_image().layers, targets, *layers, config={"Cmd": list(PROGRAM), "Env": ["PATH=/bin"]}
    )
    layout = write_layout(built, folder / "layout", "1")
    registry.push(f"oci:{layout}:1", "big:1")
    shutil.rmtree(layout)
    tree, wishes = folder / "tree", folder / "wishes.yaml"
    wishes.write_text(
        f"version: 2\nthin: 'http://{registry.host}/thin/$(repository):1'\nimages:\n"
        f"  - {{image: 'http://{registry.host}/big:1', outputs: [flat, layers, thin, podman]}}\n"
    )
    succeed("ingest", wishes, "--repository", tree)
    return World(folder, tree, registry)


def measure(world: World, rounds: int) -> dict[str, list[Cost]]:
    """Start the image in each way, `rounds` times, one way after the other."""
    ways: dict[str, Callable[[World, Path], AbstractContextManager[Words]]] = {
        "Docker 28: pull and run": docker_pulls,
        "Docker 28: snapshotter": docker_snapshotter,
        "Docker 28: thin image": docker_thin,
        "containerd 2: pull and run": containerd_pulls,
        "containerd 2: snapshotter": containerd_snapshotter,
        "containerd 2: thin image": containerd_thin,
        "Podman 5: pull and run": podman_pulls,
        "Podman 5: store": podman_store,
        "Podman 5: thin image": podman_thin,
        "Apptainer 1.4: flat image": apptainer,
    }
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            place = Path(tempfile.mkdtemp(prefix="way-", dir=world.folder))
            with way(world, place) as words:
                before, carried_before = sent(world.registry), carried()
                seconds = first_output(words)
                fetched, network = sent(world.registry) - before, carried() - carried_before
                costs[name].append(Cost(seconds, fetched, network))
            unmount_below(place)
            shutil.rmtree(place)
            last = costs[name][-1]
            print(f"{name}: {last.seconds:.2f} s, {last.fetched:,} B", file=sys.stderr)
    return costs


def first_output(words: Words) -> float:
    """Run a command; return the seconds until its first output, which must be the program's."""
    started = time.perf_counter()
    with subprocess.Popen(
        list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/"
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - started
        rest, errors = process.communicate()
    assert line == b"started\n", (line, rest, errors)
    return seconds


def sent(registry: Registry) -> int:
    """Return how many bytes the registry has sent in answers so far, by its log."""
    return sum(map(int, re.findall(r"http\.response\.written=(\d+)", registry.log.read_text())))


def carried() -> int:
    """Return how many bytes the loopback has carried so far (proc(5), /proc/net/dev)."""
    (line,) = re.findall(r"^ *lo: *(\d+)", Path("/proc/net/dev").read_text(), re.M)
    return int(line)


@contextmanager
def docker(world: World, place: Path, settings: dict[str, object], *more: str) -> Iterator[Engine]:
    """A Docker engine with `settings`, and nothing pulled."""
    (place / "daemon.json").write_text(json.dumps(settings))
    with dockerd(
        place / "docker",
        insecure_registries=[world.registry.host],
        options=("--config-file", str(place / "daemon.json"), *more),
    ) as engine:
        yield engine


RUN = ("run", "--rm", "--quiet", "--network", "none")
IMAGE_STORE = {"features": {"containerd-snapshotter": True}}


@contextmanager
def docker_pulls(world: World, place: Path) -> Iterator[Words]:
    """Docker's image store pulls all layers."""
    with docker(world, place, dict(IMAGE_STORE)) as engine:
        yield (*engine.command, *RUN, world.original)


@contextmanager
def docker_snapshotter(world: World, place: Path) -> Iterator[Words]:
    """Docker's image store has the layers from the snapshotter."""
    settings = IMAGE_STORE | {"storage-driver": "publisher"}
    with snapshots(world, place) as plugin:
        with docker(world, place, dict(settings), "--containerd", plugin.socket) as engine:
            yield (*engine.command, *RUN, world.original)


@contextmanager
def docker_thin(world: World, place: Path) -> Iterator[Words]:
    """Docker pulls the thin image, and the runtime mounts the layers."""
    runtime = {"path": oci_runtime.__file__, "runtimeArgs": ["--tree", str(world.tree)]}
    with docker(world, place, IMAGE_STORE | {"runtimes": {"thin": runtime}}) as engine:
        yield (*engine.command, *RUN, "--runtime", "thin", world.thin)


@contextmanager
def snapshots(world: World, place: Path) -> Iterator[Engine]:
    """A containerd with the snapshotter for the tree."""
    with running(place, world.tree) as (service, _):
        words = ("snapshotter", "--config", "containerd-3", "--socket", service.socket)
        printed = succeed(*words).out
        with containerd(place / "containerd", configuration=printed) as engine:
            yield engine


def ctr(engine: Engine, reference: str, *options: str) -> Words:
    """Pull and run: ctr has no command for both."""
    words = " ".join(engine.command)
    more = " ".join(options)
    return (
        *("sh", "-c"),
        f"{words} images pull --plain-http {more} {reference} >/dev/null && "
        f"{words} run --rm {more} {reference} started",
    )


@contextmanager
def containerd_pulls(world: World, place: Path) -> Iterator[Words]:
    """containerd pulls all layers."""
    with containerd(place / "containerd") as engine:
        yield ctr(engine, world.original)


@contextmanager
def containerd_snapshotter(world: World, place: Path) -> Iterator[Words]:
    """containerd has the layers from the snapshotter."""
    with snapshots(world, place) as engine:
        yield ctr(engine, world.original, "--snapshotter", "publisher")


@contextmanager
def containerd_thin(world: World, place: Path) -> Iterator[Words]:
    """containerd pulls the thin image, and the runtime mounts the layers."""
    wrapper = place / "runtime"
    wrapper.write_text(f'#!/bin/sh\nexec {oci_runtime.__file__} --tree {world.tree} "$@"\n')
    wrapper.chmod(0o755)
    with containerd(place / "containerd") as engine:
        pull, run = " ".join(engine.command), ("run", "--rm", "--runc-binary", wrapper)
        words = " ".join(map(str, (*engine.command, *run, world.thin, "started")))
        yield "sh", "-c", f"{pull} images pull --plain-http {world.thin} >/dev/null && {words}"


@contextmanager
def podman_pulls(world: World, place: Path) -> Iterator[Words]:
    """Podman pulls all layers."""
    with podman(place / "podman") as engine:
        run = ("run", "--rm", "--quiet", "--tls-verify=false", *engine.run_options)
        yield (*engine.command, *run, world.original)


@contextmanager
def podman_thin(world: World, place: Path) -> Iterator[Words]:
    """Podman pulls the thin image, and the runtime mounts the layers."""
    with podman(place / "podman") as engine:
        words = list(engine.command)
        words[words.index("--runtime") + 1] = oci_runtime.__file__
        words += ["--runtime-flag", f"tree={world.tree}"]
        run = ("run", "--rm", "--quiet", "--tls-verify=false", *engine.run_options)
        yield (*words, *run, world.thin)


@contextmanager
def podman_store(world: World, place: Path) -> Iterator[Words]:
    """Podman has the image from the additional store."""
    with podman(place / "podman") as engine:
        words = list(engine.command)
        options = {}
        for option in ("--root", "--runroot"):  # they would override the additional store
            at = words.index(option)
            options[option] = words[at + 1]
            del words[at : at + 2]
        (place / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\nrunroot = "{options["--runroot"]}"\n'
            f'graphroot = "{options["--root"]}"\n[storage.options]\n'
            f'additionalimagestores = ["{world.tree}/podmanStore"]\n'
        )
        run = ("run", "--rm", "--pull=never", *engine.run_options)
        yield ("env", f"CONTAINERS_STORAGE_CONF={place}/storage.conf", *words, *run, world.original)


@contextmanager
def apptainer(world: World, place: Path) -> Iterator[Words]:
    """Apptainer runs the flat image."""
    flat = (world.tree / world.original).resolve()
    # A machine may refuse root the capability to raise limits.
    yield ("apptainer", "run", "--cleanenv", "--no-home", "--no-privs", flat)


def measure_runtime(world: World, rounds: int) -> dict[str, float]:
    """Medians of the milliseconds of `docker run` with each runtime, its image being there."""
    place = Path(tempfile.mkdtemp(prefix="way-", dir=world.folder))
    runtime = {"path": oci_runtime.__file__, "runtimeArgs": ["--tree", str(world.tree)]}
    samples: dict[str, list[float]] = {}
    small = image(*probe_image().layers, config={"Cmd": list(PROGRAM), "Env": ["PATH=/bin"]})
    layout = write_layout(small, place / "layout", "1")
    ordinary = world.registry.push(f"oci:{layout}:1", "small:1")
    with docker(world, place, {"runtimes": {"thin": runtime}}) as engine:
        ways = {
            "runc, ordinary image": ("runc", ordinary),
            "this runtime, ordinary image": ("thin", ordinary),
            "this runtime, thin image": ("thin", world.thin),
        }
        for round_number in range(rounds + 1):
            for name, (chosen, reference) in ways.items():
                words = (*engine.command, *RUN, "--runtime", chosen, reference)
                seconds = first_output(words)
                if round_number:  # the first one pulls
                    samples.setdefault(name, []).append(seconds * 1000)
    unmount_below(place)
    return {name: statistics.median(each) for name, each in samples.items()}


if __name__ == "__main__":
    main()
