"""Images in a registry, some of them published, and what engines fetch of them."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from publisher.tree import layout
from tests.command import succeed
from tests.components import Engine, Registry, docker_registry, program
from tests.cri import Cri
from tests.layer_builder import (
    Image,
    Layer,
    Member,
    directory,
    file,
    image,
    layer,
    opaque,
    symlink,
    whiteout,
    write_layout,
)


def _base() -> Layer:
    busybox = Path(program("busybox")).read_bytes()
    names = ("sh", "cat", "ls", "sleep", "echo", "touch")
    return layer(
        directory("bin"),
        file("bin/busybox", busybox, mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in names),
        *(directory(name) for name in ("proc", "sys", "dev", "tmp", "etc")),
        file("etc/motd", b"base\n"),
        file("etc/gone", b"x"),
        file("opt/old", b"x"),
    )


_CONFIG = {
    "Env": ["PATH=/bin"],
    "Cmd": ["/bin/sh", "-c", "cat /etc/motd; ls /opt; if [ -e /etc/gone ]; then echo gone; fi"],
}


def images() -> dict[str, Image]:
    """Return the images by name: `tool` is published, and `child` is built upon it.

    `mixed` has a layer of its own between the base and one that is published in another image on
    the same layers. `other` shares nothing with what is published.
    """
    base = _base()
    tool = layer(whiteout("etc/gone"), directory("opt"), opaque("opt"), file("opt/tool", b"tool\n"))
    child = layer(file("etc/motd", b"child\n"))
    middle, top = layer(file("opt/middle", b"middle\n")), layer(file("opt/top", b"top\n"))
    other = layer(*_other_members())
    return {
        "tool": image(base, tool, config=_CONFIG),
        "child": image(base, tool, child, config=_CONFIG),
        "mixed": image(base, middle, top, config=_CONFIG),
        "other": image(other, config=_CONFIG),
    }


def _other_members() -> Iterator[Member]:
    busybox = Path(program("busybox")).read_bytes()
    yield directory("bin")
    yield file("bin/busybox", busybox + b"\0", mode=0o755)
    for name in ("sh", "cat", "ls"):
        yield symlink(f"bin/{name}", "busybox")
    for name in ("proc", "sys", "dev", "tmp", "etc", "opt"):
        yield directory(name)
    yield file("etc/motd", b"other\n")


@dataclass(frozen=True, slots=True)
class Scene:
    """A registry with all images, and a tree with `tool`, and `mixed` without its middle layer."""

    registry: Registry
    tree: Path
    images: dict[str, Image]

    def reference(self, name: str) -> str:
        return f"{self.registry.host}/{name}:1"

    def fetched(self) -> set[str]:
        """Return the names of the images' layers that were read from the registry."""
        read = set(re.findall(r"GET /v2/[^ ]*/blobs/(sha256:[0-9a-f]{64})", self._log()))
        return {
            f"{name} {number}"
            for name, each in self.images.items()
            for number, part in enumerate(each.layers)
            if part.digest in read
        }

    def forget(self) -> None:
        """Let `fetched` begin anew."""
        self.registry.log.write_bytes(b"")

    def _log(self) -> str:
        return self.registry.log.read_text(errors="replace")


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """Push all images, and publish some."""
    built = images()
    tree = folder / "tree"
    with docker_registry(folder / "registry") as registry:
        for name, each in built.items():
            write_layout(each, folder / name, "1")
            registry.push(f"oci:{folder}/{name}:1", f"{name}:1")
        for name in ("tool", "mixed"):
            succeed("ingest-image", f"oci:{folder}/{name}:1", "--repository", tree)
        shutil.rmtree(tree / layout.layer_directory(built["mixed"].layers[1].digest))
        registry.log.write_bytes(b"")
        yield Scene(registry, tree, built)


def cri_pull(socket: str, reference: str) -> None:
    """Pull an image as Kubernetes does, through the CRI service of containerd."""
    with closing(Cri(socket)) as cri:
        cri.pull(reference)


@contextmanager
def background(ctr: Engine, reference: str) -> Iterator[str]:
    """Run a container, with a name that no other has on this machine, until the block ends."""
    name = f"publisher-{secrets.token_hex(8)}"
    ctr("run", "-d", "--snapshotter", "publisher", reference, name, "sleep", "6000")
    try:
        yield name
    finally:
        ctr("task", "rm", "--force", name)
        ctr("container", "rm", name)
