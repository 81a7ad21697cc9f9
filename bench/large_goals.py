"""`python -m bench.large_goals FOLDER`: the goals for commands that look at a large repository.

Writes a repository as `bench.large_repository` does, with its numbers, and prints each goal with
what is measured, and whether it is reached. Run it on an idle machine: seconds are those of the
clock, with CPU time beside them. The memory is at least that of this program. FOLDER must not
exist, and is not removed. Ends with 1 if a goal is not reached.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.large_repository import Numbers, write_repository
from tests.layer_builder import file, image, layer, write_layout

_MEBIBYTE = 1024
"""In kilobytes, the unit of ru_maxrss."""

_MEMORY = 200
"""The most megabytes that a command may use."""


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="bench.large_goals", description=__doc__)
    parser.add_argument("folder", type=Path, help="a directory that does not exist")
    usual = Numbers()
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--entries", type=int, default=20_000, help="of each image")
    given = parser.parse_args()
    repository, site = given.folder / "images", given.folder / "site"
    given.folder.mkdir(parents=True)
    numbers = Numbers(given.images, given.entries, usual.bases, usual.base, usual.runtime)
    write_repository(repository, numbers)
    os.environ["XDG_CACHE_HOME"] = str(given.folder / "cache")
    print(f"load {os.getloadavg()[0]:.1f}, {given.images:,} images of {given.entries:,} entries")
    print(f"{'':44}{'goal':>8}{'seconds':>10}{'CPU':>8}{'MiB':>8}")
    place = ("--repository", f"dir:{repository}")
    pages = ("site", str(site), *place)
    search = ("find", "--package", "openssl<3.0.15", *place)
    reached = [_measure("stats", 5, "stats", *place), _measure("site, first run", 60, *pages)]
    write_layout(image(layer(file("new", b"new"))), given.folder / "new", "1")
    _measure("one new image", None, "ingest-image", f"oci:{given.folder}/new:1", *place)
    reached += [
        _measure("site, with one new image", 3, *pages),
        _measure("package search, first (fills the cache)", None, *search),
        _measure("package search", 1, *search),
        _measure("stats --contents, first", None, "stats", "--contents", *place),
        _measure("stats --contents", None, "stats", "--contents", *place),
    ]
    print(f"{sum(reached)} of {len(reached)} are reached, with at most {_MEMORY} MB for each")
    return 0 if all(reached) else 1


def _measure(title: str, goal: float | None, *words: str) -> bool:
    """Run a command and print its costs; return whether it reaches the goals for both."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "publisher", *words]
    with tempfile.TemporaryFile() as output:
        started = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(started.pid, 0)
        seconds = time.monotonic() - begin
        size = output.seek(0, os.SEEK_END)
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(words)} ended with {started.returncode}")
    if not size:
        raise SystemExit(f"{' '.join(words)} prints nothing")
    cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / _MEBIBYTE
    is_reached = (goal is None or seconds < goal) and used.ru_maxrss * 1024 < _MEMORY * 10**6
    costs = f"{f'{goal} s' if goal else '':>8}{seconds:10.2f}{cpu:8.2f}{memory:8.0f}"
    print(f"{title:44}{costs}  {'reached' if is_reached else 'NOT REACHED'}", flush=True)
    return is_reached


if __name__ == "__main__":
    sys.exit(main())
