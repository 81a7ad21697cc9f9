"""The SIF file of each image, which Apptainer makes of the image in the registry.

    tests/engines.sh --with FOLDER run python -m bench.results.sif NAME…

runs with the Apptainer of Debian's development release; `make_sif_files` calls it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.results.state import ROOT, progress
from tests.components import Registry, docker_registry, run

GIVEN = Path("/given")
"""Where tests/engines.sh shows the folder of the measurements."""


def sif_file(folder: Path, name: str) -> Path:
    """Return the SIF file of an image, below the folder of the measurements."""
    return folder / "sif" / f"{name}.sif"


def make_sif_files(folder: Path, names: Sequence[str]) -> None:
    """Make the SIF files that are missing; install the engines if they are."""
    missing = [name for name in names if not sif_file(folder, name).exists()]
    in_engines(folder, "bench.results.sif", *missing)


def in_engines(folder: Path, module: str, *words: str) -> str:
    """Run a module where today's engines are, with `folder` as GIVEN; return what it prints."""
    command = ["tests/engines.sh", "--with", str(folder), "run", "python", "-m", module, *words]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


@contextmanager
def given_registry() -> Iterator[Registry]:
    """Yield a registry with the images of GIVEN, whose log has only the requests made here."""
    with tempfile.TemporaryDirectory(prefix="bs-", dir="/tmp") as own:
        (Path(own) / "storage").symlink_to(GIVEN / "registry/storage")
        with docker_registry(Path(own)) as registry:
            yield registry


def main() -> None:
    """Convert the images that are named."""
    with given_registry() as registry:
        for name in sys.argv[1:]:
            made = sif_file(GIVEN, name)
            made.parent.mkdir(exist_ok=True)
            new = made.with_suffix(".new")
            source = f"docker://{registry.host}/field/{name}"
            run("apptainer", "-s", "build", "--force", "--disable-cache", "--no-https", new, source)
            new.rename(made)
            os.sync()
            progress(f"  {name}: SIF file of {made.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
