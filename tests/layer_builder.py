"""Builds layer blobs from lists of members, well-formed and malformed; and images of them.

    base = layer(directory("etc"), file("etc/motd", b"hello"), symlink("motd", "etc/motd"))
    top = layer(whiteout("etc/motd"), opaque("etc"), compression="zstd")
    built = image(base, top)
    write_layout(built, tmp_path / "layout", "latest")

The encoder can write archives that no other tar writer produces (`Member` has a field for every
field of a header), and equal members always give equal bytes. A bytes
object among the members is put into the archive as it is.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import zstandard

from publisher.oci.descriptor import Descriptor
from publisher.oci.document import Document
from publisher.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

BLOCK = 512
END = bytes(2 * BLOCK)

Compression = Literal["gzip", "zstd", "none"]
Format = Literal["pax", "gnu", "ustar", "v7"]

MEDIA_TYPES: Mapping[Compression, str] = {
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "none": "application/vnd.oci.image.layer.v1.tar",
}


@dataclass(frozen=True, slots=True, repr=False)
class Member:
    """One member of a tar archive. Fields that are None or empty get the right value."""

    name: str | bytes
    typeflag: bytes = b"0"
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    target: str | bytes = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    pax: Mapping[str, str | bytes] = field(default_factory=dict)
    format: Format = "pax"
    size: int | None = None
    checksum: bytes | None = None
    padded: bool = True

    def __repr__(self) -> str:
        changed = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if f.name != "name" and getattr(self, f.name) not in (f.default, {})
        ]
        return f"Member({', '.join([repr(self.name), *changed])})"

    def encode(self) -> bytes:
        """The member's headers, content and padding."""
        return _encode(self)


def file(name: str | bytes, content: bytes = b"", **fields: Any) -> Member:
    """A regular file."""
    return Member(name, content=content, **fields)


def directory(name: str | bytes, mode: int = 0o755, **fields: Any) -> Member:
    """A directory; its name is stored as given (real tools end it with a slash)."""
    return Member(name, b"5", mode=mode, **fields)


def symlink(name: str | bytes, target: str | bytes, **fields: Any) -> Member:
    """A symbolic link with exactly this text."""
    return Member(name, b"2", target=target, mode=fields.pop("mode", 0o777), **fields)


def hardlink(name: str | bytes, target: str | bytes, **fields: Any) -> Member:
    """A hard link to the path `target`."""
    return Member(name, b"1", target=target, **fields)


def fifo(name: str | bytes, **fields: Any) -> Member:
    """A named pipe."""
    return Member(name, b"6", **fields)


def character_device(name: str | bytes, major: int = 1, minor: int = 3, **fields: Any) -> Member:
    """A character device."""
    return Member(name, b"3", device=(major, minor), **fields)


def block_device(name: str | bytes, major: int = 8, minor: int = 0, **fields: Any) -> Member:
    """A block device."""
    return Member(name, b"4", device=(major, minor), **fields)


def whiteout(path: str, **fields: Any) -> Member:
    """The marker that deletes `path` of the layers below."""
    parent, slash, name = path.rpartition("/")
    return Member(f"{parent}{slash}.wh.{name}", **fields)


def opaque(path: str, **fields: Any) -> Member:
    """The marker that hides everything lower layers have below the directory `path`."""
    return Member(f"{path}/.wh..wh..opq" if path else ".wh..wh..opq", **fields)


def pax_header(records: Mapping[str, str | bytes], typeflag: bytes = b"x") -> bytes:
    """An extended header by itself: b"x" for the next member, b"g" for all that follow."""
    return _encode(Member("pax_header", typeflag, pax_records(records), format="ustar"))


def pax_records(records: Mapping[str, str | bytes]) -> bytes:
    """The body of an extended header: "length key=value newline" for each record."""
    lines = []
    for key, value in records.items():
        text = _bytes(key) + b"=" + _bytes(value) + b"\n"
        length = len(text) + 2
        while length != len(b"%d " % length) + len(text):
            length = len(b"%d " % length) + len(text)
        lines.append(b"%d " % length + text)
    return b"".join(lines)


def tar(*members: Member | bytes, end: bytes = END) -> bytes:
    """An archive; `end` replaces the two zero blocks."""
    return b"".join(m if isinstance(m, bytes) else m.encode() for m in members) + end


def compress(
    data: bytes, compression: Compression = "gzip", *, parts: int = 1, level: int | None = None
) -> bytes:
    """`data` compressed, reproducibly, as `parts` gzip members or zstd frames after each other."""
    step = max(1, -(-len(data) // parts))
    pieces = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
    if compression == "gzip":
        return b"".join(
            gzip.compress(piece, 6 if level is None else level, mtime=0) for piece in pieces
        )
    if compression == "zstd":
        compressor = zstandard.ZstdCompressor(level=3 if level is None else level)
        return b"".join(compressor.compress(piece) for piece in pieces)
    return data


def zstd_skippable(payload: bytes, number: int = 0) -> bytes:
    """A skippable zstd frame, as zstd:chunked puts its table of contents into."""
    return struct.pack("<II", 0x184D2A50 + number, len(payload)) + payload


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer blob, its descriptor and diff ID, and the archive inside."""

    blob: bytes
    descriptor: Descriptor
    diff_id: str
    tar: bytes

    @property
    def digest(self) -> str:
        return self.descriptor.digest

    def chunks(self, size: int = 65536) -> list[bytes]:
        """The blob as it might arrive from a network."""
        return [self.blob[at : at + size] for at in range(0, len(self.blob), size)]

    def with_descriptor(self, **fields: Any) -> Layer:
        """The same bytes with a descriptor that differs in `fields`."""
        return replace(self, descriptor=replace(self.descriptor, **fields))


def layer(
    *members: Member | bytes,
    compression: Compression = "gzip",
    parts: int = 1,
    end: bytes = END,
    media_type: str | None = None,
    algorithm: str = "sha256",
) -> Layer:
    """A layer of these members, with its true descriptor and diff ID."""
    return layer_of_tar(
        tar(*members, end=end),
        compression=compression,
        parts=parts,
        media_type=media_type,
        algorithm=algorithm,
    )


def layer_of_tar(
    archive: bytes,
    *,
    compression: Compression = "gzip",
    parts: int = 1,
    media_type: str | None = None,
    algorithm: str = "sha256",
) -> Layer:
    """A layer of the archive's bytes."""
    blob = compress(archive, compression, parts=parts)
    return layer_of_blob(blob, archive, media_type or MEDIA_TYPES[compression], algorithm)


def layer_of_blob(
    blob: bytes, archive: bytes, media_type: str = MEDIA_TYPES["gzip"], algorithm: str = "sha256"
) -> Layer:
    """A layer of a blob that was compressed elsewhere; `archive` is what should be inside."""
    descriptor = Descriptor(media_type, digest_of(blob, algorithm), len(blob))
    return Layer(blob, descriptor, digest_of(archive, algorithm), archive)


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Image:
    """An image: the exact bytes of manifest and config, and its layers from bottom to top."""

    manifest: Document
    config: bytes
    layers: tuple[Layer, ...]

    @property
    def image_id(self) -> str:
        return digest_of(self.config)

    @property
    def blobs(self) -> dict[str, bytes]:
        """Config and layers, by digest."""
        return {self.image_id: self.config} | {each.digest: each.blob for each in self.layers}


def image(
    *layers: Layer,
    config: Mapping[str, Any] | None = None,
    architecture: str = "amd64",
    os: str = "linux",
    variant: str = "",
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """An OCI image of `layers`; `config` is what containers are started with (Env, Cmd, …)."""
    document: dict[str, Any] = {"architecture": architecture, "os": os}
    if variant:
        document["variant"] = variant
    document |= {
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [each.diff_id for each in layers]},
        "history": [{"created_by": f"layer {number}"} for number, _ in enumerate(layers, 1)],
    }
    config_bytes = _json(document)
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _describe(OCI_CONFIG, config_bytes),
        "layers": [
            {
                "mediaType": each.descriptor.media_type,
                "digest": each.descriptor.digest,
                "size": each.descriptor.size,
            }
            for each in layers
        ],
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    data = _json(manifest)
    return Image(Document(data, OCI_MANIFEST, digest_of(data)), config_bytes, layers)


def image_index(images: Mapping[str, Image]) -> Document:
    """An image index; the keys are platforms: "linux/arm64"."""
    manifests = []
    for platform, each in images.items():
        os, architecture, *variant = platform.split("/")
        described = {"os": os, "architecture": architecture}
        if variant:
            described["variant"] = variant[0]
        manifests.append(
            _describe(each.manifest.media_type, each.manifest.data) | {"platform": described}
        )
    data = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
    return Document(data, OCI_INDEX, digest_of(data))


def write_layout(built: Image, folder: Path, tag: str = "latest") -> Path:
    """Add the image to the OCI image layout `folder` (made where missing) under `tag`."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for digest, data in (built.blobs | {built.manifest.digest: built.manifest.data}).items():
        algorithm, _, name = digest.partition(":")
        (folder / "blobs" / algorithm).mkdir(exist_ok=True)
        (folder / "blobs" / algorithm / name).write_bytes(data)
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    index_file = folder / "index.json"
    manifests: list[dict[str, Any]] = []
    if index_file.exists():
        manifests = json.loads(index_file.read_bytes())["manifests"]
    name_key = "org.opencontainers.image.ref.name"
    manifests = [m for m in manifests if m.get("annotations", {}).get(name_key) != tag]
    described: dict[str, Any] = _describe(built.manifest.media_type, built.manifest.data)
    manifests.append(described | {"annotations": {name_key: tag}})
    index_file.write_bytes(_json({"schemaVersion": 2, "manifests": manifests}))
    return folder


def write_index(images: Mapping[str, Image], folder: Path, tag: str) -> Path:
    """Make `folder` an OCI image layout with one image of several platforms, as `tag`."""
    for built in images.values():
        write_layout(built, folder, "part")
    index = image_index(images)
    (folder / "blobs" / index.digest.replace(":", "/")).write_bytes(index.data)
    described = _describe(index.media_type, index.data)
    described |= {"annotations": {"org.opencontainers.image.ref.name": tag}}
    (folder / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [described]}))
    return folder


def _describe(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def _encode(member: Member) -> bytes:
    name, target = _bytes(member.name), _bytes(member.target)
    size = len(member.content) if member.size is None else member.size
    seconds, fraction = divmod(member.mtime_ns, 10**9)
    records: dict[str, str | bytes] = {
        **{f"SCHILY.xattr.{key}": value for key, value in member.xattrs.items()},
        **member.pax,
    }
    before = b""
    prefix = b""
    if member.format == "pax":
        if len(name) > 100 and "path" not in records:
            records["path"] = name
        if len(target) > 100 and "linkpath" not in records:
            records["linkpath"] = target
        if (fraction or not 0 <= seconds < 8**11) and "mtime" not in records:
            records["mtime"] = _decimal(member.mtime_ns)
        for key, value, digits in (
            ("uid", member.uid, 7),
            ("gid", member.gid, 7),
            ("size", size, 11),
        ):
            if not 0 <= value < 8**digits and key not in records:
                records[key] = str(value)
    elif member.format == "gnu":
        for flag, text in ((b"K", target), (b"L", name)):
            if len(text) > 100:
                content = text + b"\0"
                before += _header(b"././@LongLink", flag, len(content), member) + _pad(content)
    elif member.format == "ustar" and len(name) > 100:
        cut = name.rfind(b"/", 0, 156)
        prefix, name = name[:cut], name[cut + 1 :]
    if records:
        before += pax_header(records)
    header = _header(name, member.typeflag, size, member, target, prefix, whole=True)
    content = _pad(member.content) if member.padded else member.content
    return before + header + content


def _header(
    name: bytes,
    typeflag: bytes,
    size: int,
    member: Member,
    target: bytes = b"",
    prefix: bytes = b"",
    *,
    whole: bool = False,
) -> bytes:
    base256 = member.format == "gnu"
    seconds = member.mtime_ns // 10**9 if whole else 0
    magic = {"gnu": b"ustar  \0", "v7": bytes(8)}.get(member.format, b"ustar\x0000")
    header = bytearray().join(
        (
            name[:100].ljust(100, b"\0"),
            _number(member.mode if whole else 0o644, 8, base256),
            _number(member.uid if whole else 0, 8, base256),
            _number(member.gid if whole else 0, 8, base256),
            _number(size, 12, base256),
            _number(seconds, 12, base256),
            b" " * 8,
            typeflag,
            target[:100].ljust(100, b"\0"),
            magic,
            bytes(64),
            _number(member.device[0] if whole else 0, 8, base256),
            _number(member.device[1] if whole else 0, 8, base256),
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    if member.format == "v7":
        header[257:] = bytes(BLOCK - 257)
    checksum = b"%06o\0 " % sum(header)
    header[148:156] = member.checksum if whole and member.checksum is not None else checksum
    return bytes(header)


def _number(value: int, width: int, base256: bool) -> bytes:
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    if base256:
        raw = value.to_bytes(width, "big", signed=True)
        return bytes([0x80 if value >= 0 else 0xFF]) + raw[1:]
    return b"0" * (width - 1) + b"\0"


def _decimal(nanoseconds: int) -> str:
    sign = "-" if nanoseconds < 0 else ""
    seconds, fraction = divmod(abs(nanoseconds), 10**9)
    return f"{sign}{seconds}.{fraction:09d}".rstrip("0").rstrip(".")


def _pad(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)
