"""The Dockerfile: its container publishes, and two builds are the same image.

    PUBLISHER_SAMPLE=all python -m pytest tests/system/test_container_image.py

builds it twice. Otherwise it is built once, and what differed between builds is looked for in it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.components import Engine, podman, program, require, run
from tests.debian import mirror, suite
from tests.layer_builder import write_layout
from tests.probe import probe_image
from tests.real_image import build_real_images
from tests.sampling import share

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.system

EPOCH = 1_700_000_000
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""By which pip may have to verify the package index of this machine."""

LEFTOVERS = """
import pathlib
flags = [path.read_bytes()[4] for place in ("/opt/publisher", "/usr/lib")
         for path in pathlib.Path(place).rglob("*.pyc")]
print(len(flags) > 1000, set(flags))
print(next(line for line in open("/etc/shadow") if line.startswith("publisher")).split(":")[2])
for place in ("/var/log", "/var/cache/apt", "/var/lib/apt/lists", "/var/cache/ldconfig", "/tmp"):
    print(*(path for path in pathlib.Path(place).rglob("*") if path.is_file()))
"""
"""Prints the flags of all bytecode, the day of the account, and files that no image should have."""


def build(engine: Engine, base: str, work: Path) -> str:
    """Build the image as docs/installation.md does, and return its ID.

    Nothing of earlier builds is used. apt's own sources are removed, so that packages come from
    those of the build argument.
    """
    work.mkdir()
    shutil.copytree("/etc/apt", work / "apt", ignore=shutil.ignore_patterns("sources.list*"))
    (work / "apt/sources.list.d").mkdir()
    (work / "pip.conf").write_text("[global]\ncert = /ca.crt\n")
    arguments = {
        "BASE": base,
        "VERSION": "1.2.3",
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "EXTRAS": "site",  # all of them would take longer than everything else
        "APT_SOURCES": f"deb {mirror()} {suite()} main",
    }
    volumes = {
        work / "apt": "/etc/apt",
        work / "pip.conf": "/etc/pip.conf:ro",
        CERTIFICATES: "/ca.crt:ro",
    }
    run(
        *(*buildah(engine), "bud", "--quiet", "--pull-never", "--isolation", "chroot"),
        *("--no-cache", "--timestamp", arguments["SOURCE_DATE_EPOCH"]),
        *(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")),
        *(word for item in volumes.items() for word in ("--volume", ":".join(map(str, item)))),
        *("--iidfile", work / "id", ROOT),
    )
    return (work / "id").read_text()


def buildah(engine: Engine) -> list[str]:
    """Return the command of buildah with the storage of a podman."""
    words = engine.command
    places = [(name, words[words.index(name) + 1]) for name in ("--root", "--runroot")]
    return [program("buildah"), *(word for place in places for word in place)]


def loaded_base(engine: Engine, work: Path) -> str:
    """Put Debian into the storage of a podman, and return its image ID."""
    layout = work / "base"  # buildah makes a name of the path, which ".cache" could not be in
    layout.symlink_to(build_real_images().layout)
    return run(*buildah(engine), "pull", "--quiet", f"oci:{layout}:base").strip()


def test_the_container_publishes_and_its_image_is_the_same_in_each_build(tmp_path: Path) -> None:
    require("buildah", "mmdebstrap", "runc")
    layout = write_layout(probe_image(), tmp_path / "layout", "1")
    images = tmp_path / "images"
    images.mkdir()
    shutil.chown(images, 10001, 10001)
    with podman(tmp_path / "engine") as engine:
        base = loaded_base(engine, tmp_path)
        built = build(engine, base, tmp_path / "first")
        if share(0, complete=0) == 1:
            assert build(engine, base, tmp_path / "second") == built
        as_root = ("--user", "0", "--entrypoint", "python3")
        found = engine.run(built, "-c", LEFTOVERS, options=as_root)
        assert found == f"True {{1}}\n{EPOCH // 86400}\n\n\n\n\n\n"
        assert engine.run(built, "--version").startswith("publisher 1.2.3 ")
        options = ("--volume", f"{layout}:/layout:ro", "--volume", f"{images}:/srv/images")
        name = ("oci:/layout:1", "--name", "probe")
        engine.run(built, "ingest-image", *name, "--repository", "dir:/srv/images", options=options)
    busybox = images / "local/probe:1/bin/busybox"
    assert busybox.read_bytes() == Path(program("busybox")).read_bytes()
    assert busybox.stat().st_uid == 10001
