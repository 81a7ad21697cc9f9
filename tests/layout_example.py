"""The example in `layout/example`: a small published tree, and how it is kept in a repository.

A tree of symlinks, hard links, whiteout devices, owners, times and extended attributes cannot be
checked in as it is. So the example is two things: every metadata file, byte for byte, at its own
path below `files/` (a layer index without its compression, which may turn out differently), and
`tree.txt`, which lists everything. In it, "=" names another path of the same inode, where the
content's digest would be; the times of the tree's own directories and files are left out.

    python -m tests.layout_example      writes it anew, after an intended change
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import zstandard

from publisher.ingest.report import Report
from publisher.ingest.run import ingest
from publisher.oci.reference import ImageReference, Transport
from publisher.repository.directory.repository import DirectoryRepository
from publisher.sources import Source
from publisher.sources.files import Directory
from publisher.sources.oci_layout import LayoutSource
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from publisher.wishlist import parse_wish_list
from publisher.wishlist.model import Request
from tests import layer_builder as build
from tests.trees import Node, describe_tree

EXAMPLE = Path(__file__).parent.parent / "layout" / "example"

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)

WISHES = b"""\
version: 2
images:
  - registry.example.org/team/tool:1.0
  - image: registry.example.org:5000/base@BASE
    owner: team
    note: what the others are built on
    outputs: [flat, layers, sbom]
  - image: quay.io/team/multi:2
    platforms: [linux/amd64, linux/arm64/v8]
    grace: 90d
"""

_COMPRESSED = ".zst"
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_RUNTIME = "/.singularity.d/"
"""Files made for Apptainer: that they are there is promised, but not what they do it with."""

_TIME = int(datetime(2025, 12, 24, 18, 30, tzinfo=UTC).timestamp()) * 10**9


def _layer(*members: build.Member) -> build.Layer:
    """A layer whose gzip stream has no choices in it, so that its digest is the same everywhere.

    One deflate block without compression (RFC 1951, 3.2.4) in one gzip member (RFC 1952).
    """
    archive = build.tar(*members)
    assert len(archive) < 2**16
    header = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    block = b"\x01" + struct.pack("<HH", len(archive), len(archive) ^ 0xFFFF) + archive
    trailer = struct.pack("<II", zlib.crc32(archive), len(archive))
    return build.layer_of_blob(header + block + trailer, archive)


BASE = _layer(
    build.directory("etc", mtime_ns=_TIME),
    build.file("etc/motd", b"welcome\n", mtime_ns=_TIME),
    build.file("etc/version", b"1\n", mtime_ns=_TIME),
    build.directory("usr", mtime_ns=_TIME),
    build.directory("usr/bin", mtime_ns=_TIME),
    build.file("usr/bin/su", b"#!/bin/sh\n", mode=0o4755, mtime_ns=_TIME),
    build.hardlink("usr/bin/sudo", "usr/bin/su"),
    build.symlink("bin", "usr/bin", mtime_ns=_TIME),
    build.directory("cache", mtime_ns=_TIME),
    build.file("cache/old", b"old\n", mtime_ns=_TIME),
)
TOOL = _layer(
    build.whiteout("etc/motd"),
    build.file("etc/version", b"2\n", mtime_ns=_TIME + 500_000_000),
    build.directory("cache", mode=0o750, uid=1000, gid=1000, mtime_ns=_TIME),
    build.opaque("cache"),
    build.file("cache/new", b"new\n", uid=1000, gid=1000, mtime_ns=_TIME),
    build.file("opt/tool with spaces", b"tool\n", mode=0o755, mtime_ns=_TIME),
)
NEWER = _layer(build.file("opt/newer", b"newer\n", mtime_ns=_TIME))
ARM = _layer(build.file("arm", b"arm\n", mtime_ns=_TIME))

_COMMAND = {"Cmd": ["/bin/su"], "Env": ["PATH=/usr/bin"]}
BASE_IMAGE = build.image(BASE)
TOOL_IMAGE = build.image(BASE, TOOL, config=_COMMAND)
MOVED_IMAGE = build.image(BASE, NEWER, config=_COMMAND)
MULTI = {
    "linux/amd64": build.image(BASE),
    "linux/arm64": build.image(ARM, architecture="arm64", variant="v8"),
}


class ExampleSources(Sources):
    """Registries of which each image repository is an OCI image layout in `folder`.

    Real registries cannot be reached under the names that the example shows.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def open(self, reference: ImageReference) -> Source:
        """The layout of the reference's image repository."""
        assert reference.transport is Transport.REGISTRY
        name = reference.repository.rpartition("/")[2]
        return LayoutSource(
            Directory(self._folder / name, str(reference)), reference.tag, reference.digest
        )


def publish_example(root: Path, scratch: Path) -> list[Report]:
    """Publish the example into `root`: everything on New Year's Day; a tag moves the day after."""
    build.write_layout(TOOL_IMAGE, scratch / "tool", "1.0")
    build.write_layout(BASE_IMAGE, scratch / "base", "latest")
    build.write_index(MULTI, scratch / "multi", "2")
    wishes = WISHES.replace(b"BASE", BASE_IMAGE.manifest.digest.encode())
    reports = [_ingest(root, scratch, wishes, NEW_YEAR)]
    build.write_layout(MOVED_IMAGE, scratch / "tool", "1.0")
    reports.append(_ingest(root, scratch, wishes, NEW_YEAR + timedelta(days=1)))
    return reports


def _ingest(root: Path, scratch: Path, wishes: bytes, now: datetime) -> Report:
    wish_list = parse_wish_list(wishes, "/srv/wishes/team.yaml")
    repository = DirectoryRepository(
        RepositoryURL("dir", str(root)), writable=True, may_be_new=True
    )
    try:
        with ExampleSources(scratch) as sources:
            return ingest(
                [Request(wish, wish_list.name) for wish in wish_list.wishes],
                repository,
                sources,
                now=lambda: now,
            )
    finally:
        repository.close()


def describe(root: Path) -> dict[str, bytes]:
    """Return the files of `layout/example` for the tree at `root`: path -> content."""
    state = root / layout.STATE
    nodes = {
        path: node
        for path, node in describe_tree(root).items()
        if not Path(root, path).is_relative_to(state)
    }
    opaque = {path for path, node in nodes.items() if node.type == "d" and _is_opaque(root / path)}
    lines = ["# type mode owner size modified path", *_listing(nodes, opaque)]
    found = {"tree.txt": "".join(f"{line}\n" for line in lines).encode()}
    for path, node in nodes.items():
        content = root / path
        if node.type != "f" or _is_content(path):
            continue
        if path.endswith(_COMPRESSED):
            with content.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as z:
                found[f"files/{path.removesuffix(_COMPRESSED)}.jsonl"] = z.read()
        else:
            found[f"files/{path}"] = content.read_bytes()
    return found


def _listing(nodes: Mapping[str, Node], opaque: Collection[str]) -> Iterator[str]:
    for path, node in sorted(nodes.items()):
        size = "-"
        if node.device is not None:
            size = "{},{}".format(*node.device)
        elif node.type == "f" and not (path.endswith(_COMPRESSED) or _RUNTIME in path):
            size = str(node.size)
        time = _time(node.mtime_ns) if _is_content(path) else "-"
        line = f"{node.type} {node.mode:04o} {node.uid}:{node.gid} {size} {time} {path or '.'}"
        if node.type == "l":
            line += f" -> {node.target}"
        if node.links and node.links[0] != path:
            line += f" = {node.links[0]}"
        elif node.type == "f" and _is_content(path) and _RUNTIME not in path:
            line += f" sha256:{node.sha256}"
        if path in opaque:
            line += "".join(f" [{name}=y]" for name in _OPAQUE)
        yield line


def _time(mtime_ns: int) -> str:
    seconds, fraction = divmod(mtime_ns, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:09d}Z" if fraction else f"{text}Z"


def _is_opaque(directory: Path) -> bool:
    found = [name for name in os.listxattr(directory) if name in _OPAQUE]
    assert len(found) in (0, len(_OPAQUE)), f"{directory} has only {found}"
    return bool(found) and all(os.getxattr(directory, name) == b"y" for name in found)


def _is_content(path: str) -> bool:
    """Whether `path` is inside a layer tree or a flat image, and not the tree's own."""
    parts = path.split("/")
    return (parts[0] == layout.FLAT and len(parts) > 2) or (
        parts[0] == layout.LAYERS and layout.LAYER_TREE in parts[3:4]
    )


@contextmanager
def published() -> Iterator[Path]:
    """The example, published into a temporary directory."""
    with tempfile.TemporaryDirectory() as directory:
        reports = publish_example(Path(directory, "images"), Path(directory, "sources"))
        for report in reports:
            assert not report.failed, report.failed
        yield Path(directory, "images")


def main() -> None:
    """Write `layout/example` anew."""
    with published() as root:
        shutil.rmtree(EXAMPLE, ignore_errors=True)
        for path, content in describe(root).items():
            (EXAMPLE / path).parent.mkdir(parents=True, exist_ok=True)
            (EXAMPLE / path).write_bytes(content)


if __name__ == "__main__":
    main()
