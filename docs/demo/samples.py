"""The demo's images: a base, two images on top of it, and a newer version of one of them."""

from __future__ import annotations

from pathlib import Path

from tests.layer_builder import (
    Image,
    Layer,
    directory,
    file,
    image,
    layer,
    symlink,
    whiteout,
    write_layout,
)

RELEASE = b'NAME="Sample Linux"\nVERSION_ID="1"\n'
LIBRARY = bytes(range(256)) * 8192  # 2 MiB that both images share

BASE = layer(
    directory("etc"),
    file("etc/os-release", RELEASE),
    file("etc/motd", b"Welcome to Sample Linux\n"),
    directory("usr"),
    directory("usr/bin"),
    file("usr/bin/hello", b"#!/bin/sh\necho hello\n", mode=0o755),
    directory("usr/lib"),
    file("usr/lib/libsample.so.1.0", LIBRARY),
    symlink("usr/lib/libsample.so", "libsample.so.1.0"),
    directory("usr/share"),
    directory("usr/share/doc"),
    file("usr/share/doc/manual.txt", b"The manual of Sample Linux.\n" * 1000),
)


def tools() -> Image:
    """The base, a program, and a layer that deletes the manual and replaces the greeting."""
    return image(BASE, _program("sort-stars", 1), _cleaned(), config={"Cmd": ["sort-stars"]})


def newer_tools() -> Image:
    """The next version of `tools`: another program in the same place, the rest as it was."""
    return image(BASE, _program("sort-stars", 2), _cleaned(), config={"Cmd": ["sort-stars"]})


def analysis() -> Image:
    """The same base, with data to analyse."""
    data = layer(directory("data"), file("data/stars.csv", b"name,magnitude\nSirius,-1.46\n"))
    return image(BASE, data, config={"Env": ["STARS=/data/stars.csv"], "Cmd": ["hello"]})


def write_samples(folder: Path) -> None:
    """Write both images as OCI layouts, as `skopeo copy … oci:DIRECTORY:TAG` would."""
    write_layout(tools(), folder / "tools", "stable")
    write_layout(analysis(), folder / "analysis", "2024")


def _program(name: str, version: int) -> Layer:
    script = f"#!/bin/sh\necho {name} version {version}\n".encode()
    return layer(file(f"usr/bin/{name}", script, mode=0o755))


def _cleaned() -> Layer:
    return layer(whiteout("usr/share/doc/manual.txt"), file("etc/motd", b"Look up!\n"))
