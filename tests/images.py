"""Ordinary images, written as OCI layouts from a few lines of code, with reproducible bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import zstandard

Compression = Literal["gzip", "zstd", "none"]

_SUFFIX: Mapping[Compression, str] = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing in a layer, as `file`, `directory`, `link`, `deleted` and the others make it."""

    path: str
    type: bytes
    content: bytes = b""
    target: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_700_000_000


def file(
    path: str, content: str | bytes = "", mode: int = 0o644, *, uid: int = 0, gid: int = 0
) -> Item:
    """A regular file."""
    data = content.encode() if isinstance(content, str) else content
    return Item(path, tarfile.REGTYPE, data, mode=mode, uid=uid, gid=gid)


def directory(path: str, mode: int = 0o755, *, uid: int = 0, gid: int = 0) -> Item:
    """A directory."""
    return Item(path, tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)


def link(path: str, target: str) -> Item:
    """A symbolic link."""
    return Item(path, tarfile.SYMTYPE, target=target, mode=0o777)


def hard_link(path: str, target: str) -> Item:
    """A second name of `target`, a path in the same layer."""
    return Item(path, tarfile.LNKTYPE, target=target)


def deleted(path: str) -> Item:
    """A whiteout: what lower layers have at `path` is gone."""
    parent, slash, name = path.rpartition("/")
    return Item(f"{parent}{slash}.wh.{name}", tarfile.REGTYPE)


def opaque(path: str) -> Item:
    """What lower layers have below the directory `path` is gone."""
    return Item(f"{path}/.wh..wh..opq", tarfile.REGTYPE)


Layer = Sequence[Item] | bytes
"""What is in a layer, or a ready-made blob, compressed or not."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer's compressed bytes, with the digest of the tar archive in them."""

    data: bytes
    media_type: str
    diff_id: str


def tar_bytes(items: Iterable[Item]) -> bytes:
    """An uncompressed tar archive of `items`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in items:
            info = tarfile.TarInfo(item.path)
            info.type, info.linkname, info.mode = item.type, item.target, item.mode
            info.uid, info.gid, info.mtime = item.uid, item.gid, item.mtime
            info.size = len(item.content)
            archive.addfile(info, io.BytesIO(item.content))
    return buffer.getvalue()


def layer_blob(layer: Layer, compression: Compression = "gzip") -> Blob:
    """`layer` as a blob. Ready-made bytes are taken as they are, whatever `compression` says."""
    if isinstance(layer, bytes):
        found = _compression_of(layer)
        return Blob(layer, _LAYER + _SUFFIX[found], _digest(_decompress(layer, found)))
    archive = tar_bytes(layer)
    return Blob(compress(archive, compression), _LAYER + _SUFFIX[compression], _digest(archive))


def compress(data: bytes, compression: Compression) -> bytes:
    """`data`, compressed without a name or a time in it."""
    if compression == "gzip":
        return gzip.compress(data, compresslevel=6, mtime=0)
    if compression == "zstd":
        return zstandard.ZstdCompressor().compress(data)
    return data


def write_oci_layout(
    layout: Path,
    images: Mapping[str, Sequence[Layer]],
    *,
    config: Mapping[str, Any] | None = None,
    compression: Compression = "gzip",
) -> dict[str, str]:
    """Write (or add to) the OCI image layout `layout`: one image per tag, of layers bottom to top.

    `config` is the image's "config" object (Cmd, Env, Entrypoint, …). A tag that is already there
    moves. Returns the manifest digest of each tag written. Same input, same bytes.
    """
    layout.mkdir(parents=True, exist_ok=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    index_path = layout / "index.json"
    index = json.loads(index_path.read_text()) if index_path.exists() else _EMPTY_INDEX
    kept = [entry for entry in index["manifests"] if entry["annotations"][_NAME] not in images]
    written = []
    for tag, layers in images.items():
        descriptor = _write_image(layout, layers, config or {}, compression)
        written.append({**descriptor, "annotations": {_NAME: tag}})
    index_path.write_bytes(_json({**index, "manifests": kept + written}))
    return {entry["annotations"][_NAME]: entry["digest"] for entry in written}


_NAME = "org.opencontainers.image.ref.name"
_EMPTY_INDEX: Mapping[str, Any] = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.index.v1+json",
    "manifests": [],
}


def _write_image(
    layout: Path, layers: Sequence[Layer], config: Mapping[str, Any], compression: Compression
) -> dict[str, Any]:
    blobs = [layer_blob(layer, compression) for layer in layers]
    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [blob.diff_id for blob in blobs]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _write_blob(layout, _json(image), "application/vnd.oci.image.config.v1+json"),
        "layers": [_write_blob(layout, blob.data, blob.media_type) for blob in blobs],
    }
    return _write_blob(layout, _json(manifest), _MANIFEST)


def _write_blob(layout: Path, data: bytes, media_type: str) -> dict[str, Any]:
    digest = _digest(data)
    path = layout / "blobs" / digest.replace(":", "/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _compression_of(data: bytes) -> Compression:
    if data.startswith(b"\x1f\x8b"):
        return "gzip"
    return "zstd" if data.startswith(b"\x28\xb5\x2f\xfd") else "none"


def _decompress(data: bytes, compression: Compression) -> bytes:
    if compression == "gzip":
        return gzip.decompress(data)
    if compression == "zstd":
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            return reader.read()
    return data
