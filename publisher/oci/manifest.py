"""Image manifests, read from their exact bytes.

Source: OCI image specification 1.1, manifest page, and Docker image manifest version 2, schema 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from publisher.errors import InvalidManifest
from publisher.lazy import dataclass
from publisher.oci.descriptor import Descriptor, parse_descriptor, parse_strings
from publisher.oci.document import Document, read_object
from publisher.oci.media_types import (
    CONFIG_TYPES,
    DOCKER_SCHEMA1,
    FOREIGN_LAYER_TYPES,
    LAYER_TYPES,
    MANIFEST_TYPES,
)

if TYPE_CHECKING:
    from publisher.oci.config import ImageConfig


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest: its config, and its layers from bottom to top."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def image_id(self) -> str:
        """The digest of the config: the image ID of Docker."""
        return self.config.digest

    @property
    def size(self) -> int:
        """The compressed size of all distinct layers, in bytes."""
        return sum({layer.digest: layer.size for layer in self.layers}.values())


def parse_manifest(document: Document) -> Manifest:
    """Read an image manifest; raise InvalidManifest for artifacts, indexes and malformed ones."""
    what = f"cannot publish manifest {document.digest}"
    if document.media_type in DOCKER_SCHEMA1:
        raise InvalidManifest(
            what,
            why="it has Docker's schema 1, which has neither a config nor the sizes of layers",
            hint="push the image again with a current tool",
        )
    if document.media_type not in MANIFEST_TYPES:
        raise InvalidManifest(what, why=f"media type {document.media_type!r} is not an image")
    value = read_object(document.data, f"manifest {document.digest}")
    if value.get("schemaVersion") != 2:
        raise InvalidManifest(what, why=f"schemaVersion is {value.get('schemaVersion')!r}, not 2")
    if "manifests" in value:
        raise InvalidManifest(what, why="it has the fields of an image index as well")
    config = _image_config(value, what)
    return Manifest(document.media_type, config, _image_layers(value, what))


def _image_config(value: Mapping[str, object], what: str) -> Descriptor:
    """Return the config; raise InvalidManifest if the manifest is that of an artifact."""
    config = parse_descriptor(value.get("config"), what, "config")
    artifact = value.get("artifactType") or config.media_type
    for kind in (artifact, config.media_type):
        if kind not in CONFIG_TYPES:
            raise InvalidManifest(
                what,
                why=f"it is an artifact of type {kind!r} (a chart, a signature, …), not an image",
            )
    return config


def _image_layers(value: Mapping[str, object], what: str) -> tuple[Descriptor, ...]:
    """Return the layers; raise InvalidManifest if one has an unknown media type."""
    layers = _layers(value, what)
    for number, layer in enumerate(layers, 1):
        if layer.media_type not in LAYER_TYPES | FOREIGN_LAYER_TYPES:
            raise InvalidManifest(
                what, why=f"layer {number} has the unknown media type {layer.media_type!r}"
            )
    return layers


def _layers(value: Mapping[str, object], what: str) -> tuple[Descriptor, ...]:
    raw_layers = value.get("layers")
    if not isinstance(raw_layers, list):
        raise InvalidManifest(what, why="layers is not a list")
    return tuple(parse_descriptor(raw, what, f"layer {n}") for n, raw in enumerate(raw_layers, 1))


def check_consistency(manifest: Manifest, config: ImageConfig, digest: str) -> None:
    """Raise InvalidManifest unless config and manifest have the same number of layers."""
    if len(config.diff_ids) != len(manifest.layers):
        raise InvalidManifest(
            f"cannot publish manifest {digest}",
            why=f"it has {len(manifest.layers)} layers, but its config has "
            f"{len(config.diff_ids)} diff IDs",
        )


def parse_published_manifest(data: bytes) -> Manifest:
    """Read the manifest.json of a published tree, also in the form in which DUCC writes it.

    DUCC writes `SchemaVersion`, `MediaType`, `Config{MediaType,Size,Digest}` and `Layers[…]`. Only
    this function therefore ignores the case of field names.
    """
    value = _lower_keys(read_object(data, "manifest.json"))
    what = "cannot read manifest.json"
    config = parse_descriptor(value.get("config"), what, "config")
    return Manifest(str(value.get("mediatype") or ""), config, _layers(value, what))


def distinct_from_top(digests: Sequence[str]) -> list[int]:
    """Return the numbers of the layers to be mounted: of equal layers only the topmost.

    The topmost one hides the effects of those below, and overlayfs does not mount a directory
    twice. `digests` are those of the layers from bottom to top.
    """
    topmost = {digest: number for number, digest in enumerate(digests)}
    return sorted(topmost.values())


def manifest_annotations(data: bytes) -> Mapping[str, str]:
    """Return the annotations of a manifest."""
    return parse_strings(read_object(data, "manifest").get("annotations"))


def _lower_keys(value: Mapping[str, object]) -> dict[str, object]:
    return {key.lower(): _with_lower_keys(item) for key, item in value.items()}


def _with_lower_keys(value: object) -> object:
    if isinstance(value, dict):
        return _lower_keys(value)
    if isinstance(value, list):
        return [_with_lower_keys(item) for item in value]
    return value
