"""Thin images as values: config, one layer with the recipe, manifest; and indexes of them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from publisher.entry import Generated
from publisher.lazy import dataclass
from publisher.oci.config import ImageConfig, single_layer_config
from publisher.oci.digest import digest_of
from publisher.oci.document import Document
from publisher.oci.media_types import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
)
from publisher.thin import archive, recipe
from publisher.thin.recipe import Recipe

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

MARK = "CVMFS_IMAGE=true"
"""The variable that tells programs in a container that their files are a mounted tree."""

BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"

# A change of this text would change the digests of all thin images.
_CREATED_BY = "publisher: the image's layers are mounted, as thin.json says"


@dataclass(frozen=True, slots=True)
class Original:
    """The image that a thin image replaces.

    `name` is its reference without a digest; `digest`, `media_type` and `annotations` are those of
    its manifest. `config_data` are the exact bytes that `config` was parsed from.
    """

    name: str
    digest: str
    media_type: str
    config: ImageConfig
    config_data: bytes
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ThinImage:
    """One thin image. `archive` is its layer without compression."""

    manifest: Document
    config: Document
    layer: Document
    archive: bytes
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class ThinSet:
    """The images of one name; `top` is the only manifest, or an index of several."""

    top: Document
    images: tuple[ThinImage, ...]


def build_image(original: Original, contents: Recipe, files: Sequence[Generated] = ()) -> ThinImage:
    """Return the thin image of `original`; equal inputs give equal bytes.

    It has the config of the original with other layers, and the same format: OCI, or Docker's
    schema 2. Its layer has `files` beside the recipe, parents before children.
    """
    is_docker = original.media_type == DOCKER_MANIFEST
    content = archive.tar({recipe.FILE_NAME: contents.to_bytes()}, files)
    config = _document(
        single_layer_config(original.config_data, digest_of(content), MARK, _CREATED_BY),
        DOCKER_CONFIG if is_docker else OCI_CONFIG,
    )
    layer = _document(archive.gzip(content), DOCKER_LAYER if is_docker else OCI_LAYER)
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if is_docker else OCI_MANIFEST,
        "config": _describe(config),
        "layers": [_describe(layer)],
    }
    if not is_docker:  # Docker's manifests have no annotations
        manifest["annotations"] = _annotations(original)
    document = _document(_dump(manifest), str(manifest["mediaType"]))
    return ThinImage(document, config, layer, content, contents)


def build_set(
    images: Sequence[tuple[Original, ThinImage]], name: str = "", digest: str = ""
) -> ThinSet:
    """Return the images of one name: a single image, or an index of one image per platform.

    `name` and `digest` are those of the original index.
    """
    if len(images) == 1:
        [(_, image)] = images
        return ThinSet(image.manifest, (image,))
    is_docker = all(original.media_type == DOCKER_MANIFEST for original, _ in images)
    index: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": DOCKER_LIST if is_docker else OCI_INDEX,
        "manifests": [
            _describe(image.manifest) | {"platform": _platform(original.config)}
            for original, image in images
        ],
    }
    if not is_docker:
        index["annotations"] = _based_on(name, digest)
    top = _document(_dump(index), str(index["mediaType"]))
    return ThinSet(top, tuple(image for _, image in images))


def _annotations(original: Original) -> dict[str, str]:
    return dict(original.annotations) | _based_on(original.name, original.digest)


def _based_on(name: str, digest: str) -> dict[str, str]:
    # Image references have no scheme, but here "http://" is added for a registry without TLS.
    return {BASE_NAME: name.removeprefix("http://"), BASE_DIGEST: digest}


def _platform(config: ImageConfig) -> dict[str, object]:
    values = {
        "architecture": config.platform.architecture,
        "os": config.platform.os,
        "os.version": config.os_version,
        "os.features": list(config.os_features),
        "variant": config.platform.variant,
    }
    return {key: value for key, value in values.items() if value}


def _document(data: bytes, media_type: str) -> Document:
    return Document(data, media_type, digest_of(data))


def _describe(document: Document) -> dict[str, object]:
    return {
        "mediaType": document.media_type,
        "size": len(document.data),
        "digest": document.digest,
    }


def _dump(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
