"""Image manifests, read from their exact bytes.

Source: OCI image specification 1.1, manifest page, and Docker image manifest version 2, schema 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from publisher.errors import InvalidManifest
from publisher.oci.config import ImageConfig
from publisher.oci.descriptor import Descriptor, parse_descriptor, parse_strings
from publisher.oci.document import Document, read_object
from publisher.oci.media_types import (
    CONFIG_TYPES,
    DOCKER_SCHEMA1,
    FOREIGN_LAYER_TYPES,
    LAYER_TYPES,
    MANIFEST_TYPES,
)


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
    value = read_object(document.data, f"manifest {document.digest}")
    if value.get("schemaVersion") != 2:
        raise InvalidManifest(what, why=f"schemaVersion is {value.get('schemaVersion')!r}, not 2")
    if "manifests" in value:
        raise InvalidManifest(what, why="it has the fields of an image index as well")
    config = parse_descriptor(value.get("config"), what, "config")
    artifact = value.get("artifactType") or ""
    if config.media_type not in CONFIG_TYPES or (artifact and artifact not in CONFIG_TYPES):
        kind = artifact or config.media_type
        raise InvalidManifest(
            what, why=f"it is an artifact of type {kind!r} (a chart, a signature, …), not an image"
        )
    raw_layers = value.get("layers")
    if not isinstance(raw_layers, list):
        raise InvalidManifest(what, why="layers is not a list")
    layers = tuple(parse_descriptor(raw, what, f"layer {n}") for n, raw in enumerate(raw_layers, 1))
    for number, layer in enumerate(layers, 1):
        if layer.media_type in FOREIGN_LAYER_TYPES and layer.urls:
            continue
        if layer.media_type not in LAYER_TYPES | FOREIGN_LAYER_TYPES:
            raise InvalidManifest(
                what, why=f"layer {number} has the unknown media type {layer.media_type!r}"
            )
    return Manifest(document.media_type, config, layers)


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
    value = _lower_keys(read_object(data, "manifest.json"))
    what = "cannot read manifest.json"
    config = parse_descriptor(value.get("config"), what, "config")
    raw_layers = value.get("layers")
    if not isinstance(raw_layers, list):
        raise InvalidManifest(what, why="layers is not a list")
    layers = tuple(parse_descriptor(raw, what, f"layer {n}") for n, raw in enumerate(raw_layers, 1))
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
    return parse_strings(read_object(data, "manifest").get("annotations"))


def _lower_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.lower(): _lower_keys(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_lower_keys(item) for item in value]
    return value
