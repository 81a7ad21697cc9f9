"""Published trees that are written directly: quicker than publishing thousands of images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from publisher.entry import Entry, EntryType
from publisher.layers.index import IndexHeader, write_index
from publisher.layers.index_lines import encode_entry
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.publication import Publication
from publisher.tree.users import ImageUsers

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def write_images(root: Path, count: int) -> None:
    """Write `count` images, each of one layer that all share and one of its own.

    Everything exists but the contents of files, which only `verify --deep` reads.
    """
    base = _digest(b"base")
    images = []
    for number in range(count):
        own = _digest(b"own %d" % number)
        _write_layer(root, own, [])
        images.append(write_image(root, f"registry.example.org/tool:{number}", [base, own]))
        write_bytes(root, layout.layer_origin(own), Origin(frozenset([images[-1]])).to_bytes())
    _write_layer(root, base, [])
    write_bytes(root, layout.layer_origin(base), Origin(frozenset(images)).to_bytes())


def write_image_of_files(root: Path, count: int) -> None:
    """Write one image whose layer has an index of `count` files, a thousand in each directory."""
    digest = _digest(b"layer")
    _write_layer(root, digest, _files(count))
    image_id = write_image(root, "registry.example.org/tool:1", [digest])
    write_bytes(root, layout.layer_origin(digest), Origin(frozenset([image_id])).to_bytes())


def _files(count: int) -> list[Entry]:
    return list(_entries(count))


def _entries(count: int) -> Iterator[Entry]:
    for at in range(0, count, 1000):
        directory = f"usr/lib/part-{at // 1000:04}"
        yield Entry(directory, EntryType.DIRECTORY, 0o755)
        for number in range(at, min(at + 1000, count)):
            name = f"{directory}/file-{number:07}"
            sha256 = hashlib.sha256(name.encode()).hexdigest()
            yield Entry(name, EntryType.FILE, size=1000, mtime_ns=10**18, sha256=sha256)


def _write_layer(root: Path, digest: str, entries: list[Entry]) -> None:
    (root / layout.layer_tree(digest)).mkdir(parents=True)
    path = root / layout.layer_index(digest)
    path.parent.mkdir(parents=True)
    header = IndexHeader(digest, _diff_id(digest), 100, 1000, len(entries), 1000)
    with path.open("wb") as file:
        write_index(file, header, map(encode_entry, entries))


def write_image(
    root: Path,
    name: str,
    layers: list[str],
    *,
    published_at: datetime = _NOW,
    wish_list: str = "",
    owner: str = "",
) -> str:
    """Write the records of an image of these layers, and return its image ID."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"name": name}},
        "rootfs": {"type": "layers", "diff_ids": [_diff_id(digest) for digest in layers]},
    }
    config_data = json.dumps(config).encode()
    image_id = _digest(config_data)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": image_id, "size": len(config_data)},
        "layers": [{"mediaType": _LAYER, "digest": each, "size": 100} for each in layers],
    }
    data = json.dumps(manifest).encode()
    digest = _digest(data)
    record = Publication(
        name=name,
        reference=name,
        source_digest=digest,
        manifest_digest=digest,
        image_id=image_id,
        platform="linux/amd64",
        outputs=("flat", "layers"),
        published_at=published_at,
        wish_list=wish_list,
        owner=owner,
    )
    write_bytes(root, layout.manifest_file(name), data)
    write_bytes(root, layout.config_file(name), config_data)
    write_bytes(root, layout.publication_file(name), record.to_bytes())
    users = ImageUsers(frozenset([(name, digest)]))
    write_bytes(root, layout.image_users(image_id), users.to_bytes())
    (root / layout.flat_image(image_id)).mkdir(parents=True)
    link = root / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(layout.link_target(name, image_id))
    return image_id


def write_bytes(root: Path, path: str, content: bytes) -> None:
    """Write a file at `path` in the repository `root`."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _diff_id(digest: str) -> str:
    return _digest(digest.encode())
