"""`python -m bench.large_goals FOLDER`: the goals for commands that look at a large repository.

Writes a repository as `bench.large_repository` does, with its numbers, and prints each goal with
what is measured. Run it on an idle machine: seconds are those of the clock, with CPU time beside
them. The memory is at least that of this program. FOLDER must not exist, and is not removed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.large_repository import Numbers, write_repository
from tests.layer_builder import file, image, layer, write_layout

_MEBIBYTE = 1024
"""In kilobytes, the unit of ru_maxrss."""


def main() -> None:
    """Measure and print."""
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
    _measure("stats", "5 s", "stats", *place)
    _measure("site, first run (memory below 200 MB)", "60 s", "site", str(site), *place)
    write_layout(image(layer(file("new", b"new"))), given.folder / "new", "1")
    _measure("one new image", "", "ingest-image", f"oci:{given.folder}/new:1", *place)
    _measure("site, with one new image", "3 s", "site", str(site), *place)
    search = ("find", "--package", "openssl<3.0.15", *place)
    _measure("package search, first (fills the cache)", "", *search)
    _measure("package search", "1 s", *search)


def _measure(title: str, goal: str, *words: str) -> None:
    begin = time.monotonic()
    command = [sys.executable, "-m", "publisher", *words]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(started.pid, 0)
    seconds = time.monotonic() - begin
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(words)} ended with {started.returncode}")
    cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / _MEBIBYTE
    print(f"{title:44}{goal:>8}{seconds:10.2f}{cpu:8.2f}{memory:8.0f}", flush=True)


if __name__ == "__main__":
    main()
