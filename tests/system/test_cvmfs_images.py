"""Real and large images on their way into CVMFS, by the command line."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.measure import RUNNER
from publisher.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from tests.command import command, environment, succeed
from tests.components import can_mount, overlay_mount, require_root
from tests.cvmfs import Machine, make_machine
from tests.real_image import RealImages
from tests.trees import assert_same_tree, describe_tree

pytestmark = pytest.mark.system

NAME = "images.test.org"
LARGE = int(os.environ.get("PUBLISHER_LARGE_LAYER", str(2**30)))
"""Bytes of the large layer; 5 GB in a documented run."""

MEMORY = 100 * 2**20


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = make_machine(tmp_path / "machine", overlay=can_mount())
    made.make(NAME)
    yield made
    made.unmount()


def test_a_real_images_stream_unpacks_to_the_directory_backends_tree_and_is_reproducible(
    machine: Machine, tmp_path: Path, real_images: RealImages
) -> None:
    require_root()
    source = real_images.source("numpy")
    directory = tmp_path / "directory"
    succeed("init", f"dir:{directory}", "--writable", "keep")  # as CVMFS does
    succeed("ingest-image", source, "--name", "numpy", "--repository", directory)
    streams = []
    for name in (NAME, machine.make("again.test.org")):
        record = tmp_path / f"record-{name}"
        record.mkdir()
        env = machine.environment | {"CVMFS_STANDIN_RECORD": str(record)}
        arguments = ("--name", "numpy", "--repository", f"cvmfs:{name}", "--verify-publish")
        succeed("ingest-image", source, *arguments, env=env)
        assert machine.revision(name) == 2
        [stream] = record.iterdir()
        streams.append(stream)

    untarred = tmp_path / "untarred"
    untarred.mkdir()
    options = ("--same-owner", "--numeric-owner", "--delay-directory-restore")
    subprocess.run(["tar", "-xpf", streams[0], "-C", untarred, *options], check=True)
    [flat] = (directory / ".flat").glob("*/*")
    place = flat.relative_to(directory)
    own = ("mtime_ns", "links", "xattrs")  # seconds, entries of their own, dropped
    marker = (".cvmfscatalog", "*/.cvmfscatalog")
    assert_same_tree(untarred / place, flat, ignore=own, ignore_paths=marker)
    assert_same_tree(machine.published(NAME) / place, flat, ignore=own, ignore_paths=marker)
    seconds = [
        {
            path: node.mtime_ns // 10**9
            for path, node in describe_tree(tree).items()
            if node.type == "f"
        }
        for tree in (untarred / place, flat)
    ]
    assert {path: seconds[0][path] for path in seconds[1]} == seconds[1]
    # The layer trees, mounted on each other from what was sent, are the flat image.
    manifest = json.loads(next((untarred / ".metadata").rglob("manifest.json")).read_bytes())
    digests = [entry["digest"].removeprefix("sha256:") for entry in manifest["layers"]]
    trees = [untarred / ".layers" / d[:2] / d / "layerfs" for d in digests]
    generated = (
        ".singularity.d*",
        ".run",
        ".exec",
        ".test",
        ".shell",
        "singularity",
        "environment",
    )
    with overlay_mount(trees) as mounted:
        shown = describe_tree(mounted)
        expected = {p: n for p, n in describe_tree(untarred / place).items() if p in shown}
        assert expected.keys() == shown.keys()
        assert_same_tree(shown, expected, ignore=own, ignore_paths=generated)
    # Records hold the time of their publication; all else is the same, byte for byte.
    assert content_of(streams[0]) == content_of(streams[1])


def content_of(stream: Path) -> str:
    """A digest of all members but the record of when the image was published."""
    hashed = hashlib.sha256()
    with tarfile.open(stream) as archive:
        for member in archive:
            if member.name.endswith("/publication.json"):
                continue
            hashed.update(member.tobuf(tarfile.GNU_FORMAT))
            file = archive.extractfile(member) if member.isreg() else None
            while file is not None and (data := file.read(1 << 20)):
                hashed.update(data)
    return hashed.hexdigest()


def write_large_image(folder: Path, size: int) -> int:
    """An image with one layer of five files that hold `size` bytes; the size of its blob."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    block = os.urandom(2**15) + bytes(2**20 - 2**15)
    archive_hash = hashlib.sha256()
    draft = blobs / "draft"

    class Both(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            archive_hash.update(data)  # type: ignore[arg-type]
            return out.write(data)  # type: ignore[arg-type]

    class Blocks(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def read(self, count: int = -1) -> bytes:
            return block[:count]

    with gzip.open(draft, "wb", compresslevel=1) as out:
        with tarfile.open(fileobj=Both(), mode="w|", bufsize=2**20) as archive:
            for number in range(5):
                info = tarfile.TarInfo(f"part{number}")
                info.size = size // 5 // 2**20 * 2**20
                archive.addfile(info, Blocks())
    with draft.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    blob_size = draft.stat().st_size
    draft.rename(blobs / digest)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{archive_hash.hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": put(blobs, OCI_CONFIG, config),
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": f"sha256:{digest}",
                "size": blob_size,
            }
        ],
    }
    entry = put(blobs, OCI_MANIFEST, manifest)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return blob_size


def put(blobs: Path, media_type: str, value: object) -> dict[str, object]:
    data = json.dumps(value).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def test_a_large_layer_takes_little_memory_and_only_its_blobs_size_in_the_spool(
    machine: Machine, tmp_path: Path
) -> None:
    blob_size = write_large_image(tmp_path / "layout", LARGE)
    env = machine.environment | {"CVMFS_STANDIN_DISCARD": str(2**20)}
    arguments = ("--name", "large", "--repository", f"cvmfs:{NAME}", "--quiet")
    process = subprocess.Popen(
        [sys.executable, RUNNER, *command("ingest-image", f"oci:{tmp_path}/layout:1", *arguments)],
        env=environment() | env,
        stdout=subprocess.PIPE,
    )
    largest = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            used = subprocess.run(
                ["du", "-s", "--block-size=1", machine.state], capture_output=True, text=True
            ).stdout
            largest[0] = max(largest[0], int(used.split()[0]) if used else 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    cost, _ = process.communicate()
    done.set()
    watcher.join()

    assert process.returncode == 0
    assert machine.revision(NAME) == 2
    seconds, _, _, peak = json.loads(cost)
    print(
        f"{LARGE / 1e9:.1f} GB in {seconds:.0f} s, {peak / 2**20:.0f} MiB of "
        f"memory, spool {largest[0] / 1e6:.0f} MB for a blob of {blob_size / 1e6:.0f} MB"
    )
    assert peak < MEMORY
    assert largest[0] < blob_size + 20_000_000
