"""`python -m bench.cvmfs`: the publisher's own part of a publication to CVMFS.

An image in an OCI layout, so that nothing is downloaded, is published to a repository of the CVMFS
stand-in, whose commands are timed. Then the streams that it received are given to a bare
`cvmfs_server ingest`, each to a new repository. Prints medians of the parts:

- until the first command: start, and the layers are unpacked to the spool
- the commands: of these, what the same commands take without the publisher
- between the commands; and after the last one: checks, records, end
- own part: the whole without what the bare commands take
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cvmfs import Machine, make_machine
from tests.layer_builder import Member, directory, file, image, layer_of_tar, tar, write_layout

_NAME = "bench.example.org"
_LAYERS = 3
_TIMED = """#!/bin/sh
before=$(date +%s.%N)
{server} "$@"
code=$?
echo "$1 $before $(date +%s.%N)" >> {log}
exit $code
"""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one publication in seconds, by wall time; `cpu` has no part of the server."""

    before: float
    commands: float
    bare: float
    between: float
    after: float
    cpu: float

    @property
    def whole(self) -> float:
        """The time of the publication."""
        return self.before + self.commands + self.between + self.after

    @property
    def own(self) -> float:
        """The time that is not the server's."""
        return self.whole - self.bare


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.cvmfs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs, of which the median")
    parser.add_argument("--megabytes", type=int, default=115, help="of the image, compressed")
    parser.add_argument("--files", type=int, default=9_000, help="of the image")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to work")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-cvmfs-", dir=arguments.folder) as folder:
        layout = write_image(Path(folder), arguments.megabytes, arguments.files)
        print_parts(measure_parts(Path(folder), layout, arguments.rounds))


def print_parts(parts: list[Parts]) -> None:
    """Print the medians."""
    for name, meaning in (
        ("before", "until the first command of the server"),
        ("commands", "commands of the server, which read the stream"),
        ("bare", "the same commands without the publisher"),
        ("between", "between the commands"),
        ("after", "after the last command"),
        ("whole", "the whole publication"),
        ("own", "own part: the whole without the bare commands"),
        ("cpu", "CPU seconds of the publisher and its workers"),
    ):
        seconds = statistics.median(getattr(each, name) for each in parts)
        print(f"{meaning:48}{seconds:8.2f} s")


def write_image(folder: Path, megabytes: int, files: int) -> Path:
    """Return an OCI layout with an image, tagged 1, whose files do not compress.

    Directories have entries of their own, as in the layers that image builders make.
    """
    chance = random.Random(1)
    size = 2 * megabytes * 1_000_000 // files
    layers = [
        layer_of_tar(tar(*_members(number, files // _LAYERS, size, chance)))
        for number in range(_LAYERS)
    ]
    return write_layout(image(*layers), folder / "layout", "1")


def _members(number: int, files: int, size: int, chance: random.Random) -> Iterator[Member]:
    for each in range(files):
        place = f"d{number}-{each // 200}"
        if each % 200 == 0:
            yield directory(place)
        yield file(f"{place}/f{each}", chance.randbytes(chance.randrange(size)))


def measure_parts(folder: Path, layout: Path, rounds: int) -> list[Parts]:
    """Publish the image `rounds` times, each time to a new machine."""
    return [_publish(folder / str(number), layout) for number in range(rounds)]


def _publish(folder: Path, layout: Path) -> Parts:
    machine = make_machine(folder / "machine")
    machine.make(_NAME)
    log = folder / "commands"
    _time_commands(machine, log)
    environment = {**os.environ, **machine.environment}
    publish = ("ingest-image", "--quiet", f"oci:{layout}:1", "--name", "bench")
    words = (sys.executable, "-m", "publisher", *publish, "--repository", f"cvmfs:{_NAME}")
    began, cpu_began = time.time(), _cpu()
    subprocess.run(words, env=environment, check=True)
    ended, cpu = time.time(), _cpu() - cpu_began
    lines = [line.split() for line in log.read_text().splitlines()]
    spans = [(float(begin), float(end)) for _, begin, end in lines]
    first, last = min(begin for begin, _ in spans), max(end for _, end in spans)
    commands = sum(end - begin for begin, end in spans)
    bare, bare_cpu = _bare(folder, layout)
    return Parts(
        first - began, commands, bare, last - first - commands, ended - last, cpu - bare_cpu
    )


def _bare(folder: Path, layout: Path) -> tuple[float, float]:
    """Return wall and CPU seconds of the server alone for the same streams."""
    machine = make_machine(folder / "recorded")
    machine.make(_NAME)
    streams = folder / "streams"
    streams.mkdir()
    environment = {**os.environ, **machine.environment, "CVMFS_STANDIN_RECORD": str(streams)}
    publish = ("ingest-image", "--quiet", f"oci:{layout}:1", "--name", "bench")
    words = (sys.executable, "-m", "publisher", *publish, "--repository", f"cvmfs:{_NAME}")
    subprocess.run(words, env=environment, check=True)
    calls = [call for call in machine.calls() if "ingest" in call and "-t" in call]
    alone = make_machine(folder / "alone")
    alone.make(_NAME)
    began, cpu_began = time.monotonic(), _cpu()
    for call, stream in zip(calls, sorted(streams.iterdir()), strict=True):
        with stream.open("rb") as source:
            subprocess.run(
                [str(alone.bin / "cvmfs_server"), *call],
                stdin=source,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **alone.environment},
                check=True,
            )
    return time.monotonic() - began, _cpu() - cpu_began


def _time_commands(machine: Machine, log: Path) -> None:
    """Replace the machine's command by one that also writes when each call began and ended."""
    command = machine.bin / "cvmfs_server"
    real = command.rename(machine.bin / "real_server")
    command.write_text(_TIMED.format(server=shlex.quote(str(real)), log=shlex.quote(str(log))))
    command.chmod(0o755)


def _cpu() -> float:
    """Return the CPU seconds of all children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    main()
