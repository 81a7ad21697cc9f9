"""Debian root file systems for tests, made by mmdebstrap from the machine's own package mirror."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from tests.components import program, require_root, run

MACHINE_FILES = (
    "/etc/apt",
    "/etc/ssl",
    "/usr/share/keyrings",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
)
"""Where a machine keeps how to reach its package mirror: sources, keys, proxies, certificates."""

_OPTIONS = (
    *("--quiet", "--variant=minbase", "--dpkgopt=force-unsafe-io"),
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",  # as debootstrap does
)


def suite() -> str:
    """The Debian release of this machine ("bookworm"), whose mirror it can therefore reach."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def cached(
    name: str, recipe: int, build: Callable[[Path], None], *, release: str | None = None
) -> Path:
    """The directory that `build` fills, kept between runs until `recipe` or the release changes.

    Lies in the user's cache, outside the checkout; one process builds it while others wait.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "publisher-tests"
    cache.mkdir(parents=True, exist_ok=True)
    release = release or suite()
    finished = cache / f"{name}-{release}-{platform.machine()}-{recipe}"
    with FileLock(cache / f"{name}-{release}.lock"):
        if not finished.exists():
            for leftover in cache.glob(f"{name}-{release}-{platform.machine()}-*"):
                shutil.rmtree(leftover)  # an older recipe's, or an interrupted build's
            building = Path(tempfile.mkdtemp(prefix=f"{finished.name}.", dir=cache))
            build(building)
            building.rename(finished)
    return finished


def install_debian(root: Path, include: Sequence[str] = (), *, release: str | None = None) -> None:
    """Install a minimal Debian into `root`, without package lists and downloaded archives.

    `release` is a release other than this machine's, which the same mirror has.
    """
    require_root()
    packages = ",".join(("usr-is-merged", *include))
    run(
        program("mmdebstrap"),
        *_OPTIONS,
        f"--include={packages}",
        release or suite(),
        root,
        mirror(),
    )
    for directory in ("var/cache/apt", "var/lib/apt/lists", "var/log"):
        shutil.rmtree(root / directory)
        (root / directory).mkdir()


def mirror() -> str:
    """The URL from which the machine's own apt takes its release; no other may be reachable."""
    template = "$(CODENAME) $(REPO_URI)"
    targets = run("apt-get", "indextargets", "--format", template, "Created-By: Packages")
    for line in targets.splitlines():
        codename, _, url = line.partition(" ")
        if codename == suite():
            return url
    raise AssertionError(f"apt's sources have no {suite()}; apt-get update first? {targets}")
