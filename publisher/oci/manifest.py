"""Manifests, configs, image indexes, descriptors and platforms, read from their exact bytes.

Source: OCI image specification 1.1 (descriptor, manifest, image-index and config pages) and Docker
image manifest version 2, schema 2. Nothing here does input or output.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from publisher.errors import DigestMismatch, InvalidManifest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_SCHEMA1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)

MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
CONFIG_TYPES = (OCI_CONFIG, DOCKER_CONFIG)

LAYER_TYPES = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    }
)
FOREIGN_LAYER_TYPES = frozenset(
    {
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)

MAX_DOCUMENT_BYTES = 8 * 1024 * 1024
"""The largest manifest, index or config we read; registries limit theirs to 4 MiB."""

MAX_NESTING = 64
"""Levels of objects and lists in a document. Real ones have less than ten."""

MAX_BLOB_BYTES = 2**63 - 1
"""The specification's sizes are signed and of 64 bits."""

_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")
_PLATFORM_PART = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")  # it becomes a directory: no leading dot


def is_digest(text: str) -> bool:
    """Whether `text` is a digest of a kind we can verify: sha256 or sha512, lower-case hex."""
    return _DIGEST.match(text) is not None


def digest_hex(digest: str) -> str:
    """The bare hex of "algorithm:hex", as used in the published tree's paths."""
    return digest.partition(":")[2]


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """The digest of `data`, as "algorithm:hex"."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def check_digest(data: bytes, expected: str, what: str) -> None:
    """Raise DigestMismatch, naming `what`, unless `data` has the digest `expected`."""
    actual = digest_of(data, expected.partition(":")[0])
    if actual != expected:
        raise DigestMismatch(what, expected=expected, actual=actual)


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system, architecture and variant, in the words of the OCI specification."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read "os/architecture[/variant]"; ValueError for anything else."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(_PLATFORM_PART.match(p) for p in parts):
            raise ValueError(f"{text!r} is not os/architecture[/variant], such as linux/amd64")
        return cls(*parts).normalized()

    def normalized(self) -> Platform:
        """Common spellings made one: x86_64 is amd64, aarch64 is arm64, arm64/v8 is arm64."""
        architecture = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}.get(
            self.architecture, self.architecture
        )
        variant = self.variant
        if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
            variant = ""
        if architecture == "arm" and not variant:
            variant = "v7"
        return Platform(self.os, architecture, variant)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of a blob: media type, digest ("algorithm:hex") and size in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """The exact bytes of a manifest, index or config, whose digest was verified by who read it."""

    data: bytes
    media_type: str
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest: its config, and its layers from bottom to top."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def image_id(self) -> str:
        """The digest of the config: what Docker calls the image ID."""
        return self.config.digest

    @property
    def size(self) -> int:
        """Bytes of all distinct layers, as they are downloaded."""
        return sum({layer.digest: layer.size for layer in self.layers}.values())


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """An image index (Docker: manifest list): descriptors of manifests, by platform."""

    manifests: tuple[Descriptor, ...]

    def choose(self, platform: Platform) -> Descriptor | None:
        """The manifest for `platform`, or None.

        An exact variant wins; else an entry without a variant; else, when no variant was asked for,
        the first with one. Entries that are not images (unknown/unknown: attestations) never match.
        """
        wanted = platform.normalized()
        fallback: Descriptor | None = None
        generic: Descriptor | None = None
        for descriptor in self.images():
            assert descriptor.platform is not None
            offered = descriptor.platform.normalized()
            if (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
                continue
            if offered.variant == wanted.variant:
                return descriptor
            if not offered.variant:
                generic = generic or descriptor
            elif not wanted.variant:
                fallback = fallback or descriptor
        return generic or fallback

    def images(self) -> tuple[Descriptor, ...]:
        """The entries that are images of a known platform."""
        return tuple(
            d
            for d in self.manifests
            if d.platform is not None
            and "unknown" not in (d.platform.os, d.platform.architecture)
            and d.media_type in MANIFEST_TYPES
        )

    def nested(self) -> tuple[Descriptor, ...]:
        """The entries that are image indexes themselves."""
        return tuple(d for d in self.manifests if d.media_type in INDEX_TYPES)


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image's config: what a container is started with, and its layers' diff IDs.

    `values` is the whole parsed document, so that nothing of it is lost on the way to a runtime.
    """

    platform: Platform
    diff_ids: tuple[str, ...]
    values: Mapping[str, Any]


def detect_media_type(data: bytes, declared: str = "") -> str:
    """The media type that the document itself states, else `declared`, else what its fields say.

    A document and its Content-Type that disagree are refused, as the specification demands: the
    same bytes could otherwise be read as two different images.
    """
    value = _object(data, "manifest")
    stated = value.get("mediaType", "")
    if not isinstance(stated, str):
        raise InvalidManifest("cannot read manifest", why="mediaType is not a string")
    known = (*MANIFEST_TYPES, *INDEX_TYPES, *DOCKER_SCHEMA1)
    declared = declared.partition(";")[0].strip()
    if stated and declared in known and stated != declared:
        raise InvalidManifest(
            "cannot read manifest", why=f"it says it is {stated}, but was served as {declared}"
        )
    if stated:
        return stated
    if declared in known:
        return declared
    if value.get("schemaVersion") == 1:
        return DOCKER_SCHEMA1[0]
    if "manifests" in value:
        return OCI_INDEX
    if "config" in value and "layers" in value:
        return OCI_MANIFEST
    raise InvalidManifest(
        "cannot read manifest",
        why=f"neither an image manifest nor an image index (media type {declared or 'not given'})",
    )


def parse_manifest(document: Document) -> Manifest:
    """Read an image manifest; InvalidManifest says why another kind of thing is refused."""
    what = f"cannot publish manifest {document.digest}"
    if document.media_type in DOCKER_SCHEMA1:
        raise InvalidManifest(
            what,
            why="it is of Docker's schema 1, which names layers without their sizes or a config",
            hint="push the image again with a current tool",
        )
    if document.media_type not in MANIFEST_TYPES:
        raise InvalidManifest(what, why=f"media type {document.media_type!r} is not an image")
    value = _object(document.data, f"manifest {document.digest}")
    if value.get("schemaVersion") != 2:
        raise InvalidManifest(what, why=f"schemaVersion is {value.get('schemaVersion')!r}, not 2")
    if "manifests" in value:
        raise InvalidManifest(what, why="it has the fields of an image index as well")
    config = _descriptor(value.get("config"), what, "config")
    artifact = value.get("artifactType") or ""
    if config.media_type not in CONFIG_TYPES or (artifact and artifact not in CONFIG_TYPES):
        kind = artifact or config.media_type
        raise InvalidManifest(
            what, why=f"it is an artifact of type {kind!r} (a chart, a signature, …), not an image"
        )
    raw_layers = value.get("layers")
    if not isinstance(raw_layers, list):
        raise InvalidManifest(what, why="layers is not a list")
    layers = tuple(_descriptor(raw, what, f"layer {n}") for n, raw in enumerate(raw_layers, 1))
    for number, layer in enumerate(layers, 1):
        if layer.media_type in FOREIGN_LAYER_TYPES and layer.urls:
            continue
        if layer.media_type not in LAYER_TYPES | FOREIGN_LAYER_TYPES:
            raise InvalidManifest(
                what, why=f"layer {number} has the unknown media type {layer.media_type!r}"
            )
    return Manifest(document.media_type, config, layers)


def parse_index(document: Document) -> ImageIndex:
    """Read an image index or manifest list."""
    what = f"cannot read image index {document.digest}"
    value = _object(document.data, f"image index {document.digest}")
    manifests = value.get("manifests")
    if not isinstance(manifests, list):
        raise InvalidManifest(what, why="manifests is not a list")
    if "layers" in value or "config" in value:
        raise InvalidManifest(what, why="it has the fields of an image manifest as well")
    return ImageIndex(
        tuple(_descriptor(raw, what, f"manifest {n}") for n, raw in enumerate(manifests, 1))
    )


def parse_config(data: bytes, digest: str) -> ImageConfig:
    """Read an image config; `digest` names it in errors."""
    what = f"cannot read config {digest}"
    value = _object(data, f"config {digest}")
    os, architecture = value.get("os"), value.get("architecture")
    variant = value.get("variant") or ""
    if not isinstance(value.get("config") or {}, dict):
        raise InvalidManifest(what, why="its config is not an object")
    rootfs = value.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not (isinstance(os, str) and isinstance(architecture, str) and isinstance(variant, str)):
        raise InvalidManifest(what, why="os, architecture or variant is missing or not a string")
    if diff_ids is None:
        diff_ids = []  # an image without layers may leave it out, or say null
    if not isinstance(diff_ids, list) or not all(
        isinstance(d, str) and is_digest(d) for d in diff_ids
    ):
        raise InvalidManifest(what, why="rootfs.diff_ids is not a list of digests")
    return ImageConfig(Platform(os, architecture, variant), tuple(diff_ids), value)


def check_consistency(manifest: Manifest, config: ImageConfig, digest: str) -> None:
    """Raise InvalidManifest unless config and manifest speak of the same number of layers."""
    if len(config.diff_ids) != len(manifest.layers):
        raise InvalidManifest(
            f"cannot publish manifest {digest}",
            why=f"it has {len(manifest.layers)} layers, but its config has "
            f"{len(config.diff_ids)} diff IDs",
        )


def parse_published_manifest(data: bytes) -> Manifest:
    """Read a manifest.json of a published tree: exact bytes, or DUCC's re-serialisation of them.

    DUCC wrote `SchemaVersion`, `MediaType`, `Config{MediaType,Size,Digest}` and `Layers[…]`; field
    names are therefore matched without regard to case here, and only here.
    """
    value = _lower_keys(_object(data, "manifest.json"))
    what = "cannot read manifest.json"
    config = _descriptor(value.get("config"), what, "config")
    raw_layers = value.get("layers")
    if not isinstance(raw_layers, list):
        raise InvalidManifest(what, why="layers is not a list")
    layers = tuple(_descriptor(raw, what, f"layer {n}") for n, raw in enumerate(raw_layers, 1))
    return Manifest(str(value.get("mediatype") or ""), config, layers)


def distinct_from_top(digests: Sequence[str]) -> list[int]:
    """The numbers of the layers that must be mounted to show all: of equal ones the topmost only.

    What a layer adds and deletes at its topmost place hides what it did below; and overlayfs takes
    no directory twice. The digests are those of an image's layers from bottom to top.
    """
    topmost = {digest: number for number, digest in enumerate(digests)}
    return sorted(topmost.values())


def manifest_annotations(data: bytes) -> Mapping[str, str]:
    """The annotations of a manifest, if it has any."""
    return _strings(_object(data, "manifest").get("annotations"))


def _object(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidManifest(
            f"cannot read {what}", why=f"{len(data)} bytes is more than {MAX_DOCUMENT_BYTES}"
        )
    try:
        value = json.loads(
            data.decode(
                "utf-8"
            ),  # json.loads would take UTF-16 as well, which no other reader does
            object_pairs_hook=_object_of_pairs,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise InvalidManifest(
            f"cannot read {what}", why=f"not JSON: {error}; it begins {data[:60]!r}"
        ) from error
    if not isinstance(value, dict):
        raise InvalidManifest(f"cannot read {what}", why="not a JSON object")
    if _nesting_exceeds(value, MAX_NESTING):
        raise InvalidManifest(
            f"cannot read {what}", why=f"it is nested deeper than {MAX_NESTING} levels"
        )
    return value


def _object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        # One reader would take the first and another the last: two images in the same bytes.
        raise ValueError("an object has the same key twice")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number that JSON can hold")
    return number


def _nesting_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def _lower_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.lower(): _lower_keys(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_lower_keys(item) for item in value]
    return value


def _descriptor(raw: Any, what: str, name: str) -> Descriptor:
    if not isinstance(raw, dict):
        raise InvalidManifest(what, why=f"{name} is not an object")
    media_type = raw.get("mediaType", raw.get("mediatype"))
    digest, size = raw.get("digest"), raw.get("size")
    if not isinstance(media_type, str):
        raise InvalidManifest(what, why=f"{name} has no media type")
    if not isinstance(digest, str) or not is_digest(digest):
        raise InvalidManifest(what, why=f"{name} has no digest that we can verify: {digest!r}")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_BLOB_BYTES:
        raise InvalidManifest(what, why=f"{name} has no size: {size!r}")
    urls = raw.get("urls") or []
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise InvalidManifest(what, why=f"{name} has urls that are not strings")
    return Descriptor(
        media_type,
        digest,
        size,
        _platform(raw.get("platform")),
        tuple(urls),
        _strings(raw.get("annotations")),
    )


def _platform(raw: Any) -> Platform | None:
    if not isinstance(raw, dict):
        return None
    os, architecture = raw.get("os"), raw.get("architecture")
    variant = raw.get("variant") or ""
    if not (isinstance(os, str) and isinstance(architecture, str) and isinstance(variant, str)):
        return None
    return Platform(os, architecture, variant)


def _strings(raw: Any) -> Mapping[str, str]:
    items: Iterable[tuple[Any, Any]] = raw.items() if isinstance(raw, dict) else ()
    return {k: v for k, v in items if isinstance(k, str) and isinstance(v, str)}
