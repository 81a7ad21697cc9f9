"""The Dockerfile: two builds are the same image, and its container publishes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.components import Engine, podman, program, require, run
from tests.debian import mirror, suite
from tests.layer_builder import write_layout
from tests.probe import probe_image
from tests.real_image import build_real_images

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.system

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""By which pip may have to verify the package index of this machine."""

LEFTOVERS = """
import pathlib
flags = [path.read_bytes()[4] for place in ("/opt/publisher", "/usr/lib")
         for path in pathlib.Path(place).rglob("*.pyc")]
print(len(flags) > 1000, set(flags))
for place in ("/var/log", "/var/cache/apt", "/var/lib/apt/lists", "/var/cache/ldconfig", "/tmp"):
    print(*(path for path in pathlib.Path(place).rglob("*") if path.is_file()))
"""
"""Prints the flags of all bytecode, and files that no image should have."""


def build(engine: Engine, work: Path) -> str:
    """Build the image as docs/installation.md does, and return its ID.

    Nothing of earlier builds is used. apt's own sources are removed, so that packages come from
    those of the build argument.
    """
    work.mkdir()
    shutil.copytree("/etc/apt", work / "apt", ignore=shutil.ignore_patterns("sources.list*"))
    (work / "apt/sources.list.d").mkdir()
    (work / "pip.conf").write_text("[global]\ncert = /ca.crt\n")
    place = [word for name in ("--root", "--runroot") for word in (name, _value(engine, name))]
    arguments = {
        "BASE": f"oci:{build_real_images().layout}:base",
        "VERSION": "1.2.3",
        "SOURCE_DATE_EPOCH": "1800000000",
        "APT_SOURCES": f"deb {mirror()} {suite()} main",
    }
    volumes = {
        work / "apt": "/etc/apt",
        work / "pip.conf": "/etc/pip.conf:ro",
        CERTIFICATES: "/ca.crt:ro",
    }
    run(
        *(program("buildah"), *place, "bud", "--quiet"),
        *("--isolation", "chroot", "--no-cache", "--timestamp", arguments["SOURCE_DATE_EPOCH"]),
        *(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")),
        *(word for item in volumes.items() for word in ("--volume", ":".join(map(str, item)))),
        *("--iidfile", work / "id", ROOT),
    )
    return (work / "id").read_text()


def _value(engine: Engine, option: str) -> str:
    return engine.command[engine.command.index(option) + 1]


def test_two_builds_are_the_same_image_and_its_container_publishes(tmp_path: Path) -> None:
    require("buildah", "mmdebstrap", "runc")
    layout = write_layout(probe_image(), tmp_path / "layout", "1")
    images = tmp_path / "images"
    images.mkdir()
    shutil.chown(images, 10001, 10001)
    with podman(tmp_path / "engine") as engine:
        built = build(engine, tmp_path / "first")
        assert build(engine, tmp_path / "second") == built
        found = engine.run(built, "-c", LEFTOVERS, options=("--entrypoint", "python3"))
        assert found == "True {1}\n\n\n\n\n\n"
        assert engine.run(built, "--version").startswith("publisher 1.2.3 ")
        options = ("--volume", f"{layout}:/layout:ro", "--volume", f"{images}:/srv/images")
        name = ("oci:/layout:1", "--name", "probe")
        engine.run(built, "ingest-image", *name, "--repository", "dir:/srv/images", options=options)
    busybox = images / "local/probe:1/bin/busybox"
    assert busybox.read_bytes() == Path(program("busybox")).read_bytes()
    assert busybox.stat().st_uid == 10001
