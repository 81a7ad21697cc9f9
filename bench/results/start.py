"""How long a container takes to its first output, and what a start reads.

    tests/engines.sh --with FOLDER run python -m bench.results.start NAME…

runs with the engines of Debian's development release and prints JSON; `measure_starts` calls it.
The published tree is on a disk of its own, with the SIF files: a file with ext4, which is mounted
again before each cold start, past the page cache. So a cold start reads the tree from the disk, and
the kernel counts what it reads; engines and the registry's files stay in caches. Then the same
command runs again.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import start
from bench.results.images import PUBLISHER, World
from bench.results.recipes import RECIPES
from bench.results.sif import GIVEN, given_registry, in_engines, sif_file
from bench.results.state import progress
from bench.start import Words, first_output, sent
from tests.command import succeed
from tests.components import podman, run, unmount_below

PROBES = ("numpy:2.2", "science:2025a", "r:4.2")
ROUNDS = 3
_DISK = "starts.ext4"
_DISK_BYTES = 6 * 2**30
_SECTOR = 512
_SIF = "SIF file, Apptainer"


def measure_shares(world: World) -> list[dict[str, Any]]:
    """Return what the command of each image opens, by `publisher trace`, beside the whole image."""
    rows = []
    for recipe in world.recipes:
        command = [
            *(*PUBLISHER, "trace", world.reference(recipe), "--dry-run", "--output", "json"),
            *("--limit", "100000", "--repository", str(world.tree)),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            progress(f"  {recipe.name}: not traced: {done.stderr.strip()[-300:]}")
            continue
        traced = json.loads(done.stdout)
        rows.append(
            {
                "name": recipe.name,
                "command": " ".join(recipe.command),
                "files": len(traced["files"]),
                "bytes": traced["bytes"],
            }
        )
        progress(f"  {recipe.name}: {rows[-1]['files']} files, {rows[-1]['bytes'] / 1e6:.1f} MB")
    return rows


def measure_starts(world: World) -> dict[str, Any]:
    """Return the starts with today's engines, in the root directory of tests/engines.sh."""
    disk = world.state.folder / _DISK
    disk.unlink(missing_ok=True)
    with disk.open("wb") as file:
        file.truncate(_DISK_BYTES)
    run("mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", disk)
    printed = in_engines(world.state.folder, "bench.results.start", *PROBES)
    disk.unlink()
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return result


@dataclass(frozen=True, slots=True)
class Place(start.World):
    """One image in the registry and in the tree."""

    image: str = ""
    command: tuple[str, ...] = ()
    sif: Path = field(default=Path())

    @property
    def original(self) -> str:
        """The image as it was pushed."""
        return f"{self.registry.host}/field/{self.image}"

    @property
    def flat(self) -> Path:
        """The directory of its flat image."""
        return (self.tree / self.original).resolve()


class Disk:
    """A file with a file system, mounted for reading without what was cached of it."""

    def __init__(self, file: Path, point: Path) -> None:
        self._file = file
        self._point = point
        self._device = ""

    def fill(self, work: Callable[[], None]) -> None:
        """Mount it, writable, while `work` fills it."""
        run("mount", "-o", "loop", self._file, self._point)
        work()
        run("umount", self._point)

    def renew(self) -> None:
        """Mount it by a new loop device, so that nothing of it is in the page cache."""
        self.close()
        options = ("--direct-io=on", "--read-only", "--find", "--show")
        self._device = run("losetup", *options, self._file).strip()
        run("mount", "-o", "ro,noload", self._device, self._point)

    def read(self) -> int:
        """Return how many bytes were read since `renew`, by the kernel's count of the device."""
        name = Path(self._device).name
        return int(Path(f"/sys/block/{name}/stat").read_text().split()[2]) * _SECTOR

    def close(self) -> None:
        """Unmount it."""
        if self._device:
            run("umount", "--lazy", self._point)
            run("losetup", "--detach", self._device)
            self._device = ""


@contextmanager
def bwrap(world: start.World, place: Path) -> Iterator[Words]:
    """Bubblewrap on the flat image."""
    assert isinstance(world, Place)
    mounts = ("--ro-bind", world.flat, "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp")
    yield ("bwrap", *mounts, *world.command)


@contextmanager
def apptainer_flat(world: start.World, place: Path) -> Iterator[Words]:
    """Apptainer on the flat image."""
    assert isinstance(world, Place)
    yield ("apptainer", "exec", "--cleanenv", "--no-home", "--no-privs", world.flat, *world.command)


@contextmanager
def apptainer_sif(world: start.World, place: Path) -> Iterator[Words]:
    """Apptainer on a SIF file."""
    assert isinstance(world, Place)
    yield ("apptainer", "exec", "--cleanenv", "--no-home", "--no-privs", world.sif, *world.command)


@contextmanager
def podman_rootfs(world: start.World, place: Path) -> Iterator[Words]:
    """Podman on the flat image."""
    assert isinstance(world, Place)
    with podman(place / "podman") as engine:
        run_words = ("run", "--rm", "--quiet", *engine.run_options, "--rootfs", f"{world.flat}:O")
        yield (*engine.command, *run_words, *world.command)


Way = Callable[[start.World, Path], AbstractContextManager[Words]]
WAYS: Mapping[str, Way] = {
    "flat image, bubblewrap": bwrap,
    "flat image, Apptainer": apptainer_flat,
    "flat image, Podman --rootfs": podman_rootfs,
    "Podman store, Podman": start.podman_store,
    "snapshotter, containerd": start.containerd_snapshotter,
    "snapshotter, Docker": start.docker_snapshotter,
    _SIF: apptainer_sif,
    "pull and run, Podman": start.podman_pulls,
    "pull and run, containerd": start.containerd_pulls,
    "pull and run, Docker": start.docker_pulls,
}


def main() -> None:
    """Measure where the engines are, and print the result as one line of JSON."""
    parser = argparse.ArgumentParser(prog="bench.results.start", description=__doc__)
    parser.add_argument("names", nargs="+", help="images, of bench.results.recipes")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bs-", dir="/tmp"))
    (folder / "tree").mkdir()
    disk = Disk(GIVEN / _DISK, folder / "tree")
    try:
        with given_registry() as registry:
            commands = {recipe.name: recipe.command for recipe in RECIPES}
            places = [
                Place(folder, folder / "tree", registry, name, commands[name],
                      folder / "tree/sif" / name)
                for name in given.names
            ]  # fmt: skip
            disk.fill(lambda: _publish(places))
            result = {
                "rounds": given.rounds,
                "engines": _versions(),
                "starts": _measure(places, disk, given.rounds),
            }
    finally:
        disk.close()
        unmount_below(folder)
        shutil.rmtree(folder)
    print(json.dumps(result))


def _publish(places: Sequence[Place]) -> None:
    wishes = places[0].folder / "wishes.yaml"
    wishes.write_text(
        "version: 2\nimages:\n"
        + "".join(
            f"  - {{image: 'http://{each.original}', outputs: [flat, layers, podman]}}\n"
            for each in places
        )
    )
    succeed("ingest", wishes, "--repository", places[0].tree)
    (places[0].tree / "sif").mkdir()
    for each in places:
        shutil.copy(sif_file(GIVEN, each.image), each.sif)
    progress("  published")


def _versions() -> dict[str, str]:
    """Return the version that each engine prints."""
    found = {}
    for name, words in {
        "bubblewrap": ("bwrap", "--version"),
        "Apptainer": ("apptainer", "--version"),
        "Podman": ("podman", "--version"),
        "containerd": ("containerd", "--version"),
        "Docker": ("dockerd", "--version"),
    }.items():
        numbers = re.findall(r"(?<=[ v])[0-9]+\.[0-9][^ ,\n]*", run(*words))
        found[name] = numbers[0]
    return found


def _measure(places: Sequence[Place], disk: Disk, rounds: int) -> dict[str, Any]:
    """Return medians by image and way: cold and warm seconds, bytes of the disk and registry."""
    samples: dict[tuple[str, str], list[tuple[float, float, int, int]]] = {}
    for number in range(rounds):
        for place in places:
            for name, way in WAYS.items():
                with suppress(_DoesNotStart):
                    sample = _start(place, disk, name, way)
                    samples.setdefault((place.image, name), []).append(sample)
        progress(f"  round {number + 1} of {rounds}")
    result: dict[str, Any] = {}
    for (image, name), each in samples.items():
        cold, warm, disk_bytes, fetched = zip(*each, strict=True)
        result.setdefault(image, {})[name] = {
            "cold": round(statistics.median(cold), 3),
            "coldMost": round(max(cold), 3),
            "warm": round(statistics.median(warm), 3),
            "read": max(disk_bytes),
            "fetched": max(fetched),
        }
    return result


class _DoesNotStart(Exception):
    """An engine does not start the image on this machine."""


def _start(place: Place, disk: Disk, name: str, way: Way) -> tuple[float, float, int, int]:
    disk.renew()
    os.sync()
    work = Path(tempfile.mkdtemp(prefix="way-", dir=place.folder))
    try:
        with way(place, work) as words:
            read_before, sent_before = disk.read(), sent(place.registry)
            cold = first_output(words)
            read, fetched = disk.read() - read_before, sent(place.registry) - sent_before
            warm = first_output(words)
    except AssertionError as error:
        print(f"{place.image}, {name}: {str(error)[-500:]}", file=sys.stderr)
        raise _DoesNotStart from error
    finally:
        unmount_below(work)
        shutil.rmtree(work)
    print(f"  {place.image}, {name}: {cold:.2f} s, {warm:.2f} s, {read:,} B, {fetched:,} B",
          file=sys.stderr)  # fmt: skip
    return cold, warm, read, fetched


if __name__ == "__main__":
    main()
