"""Show an image at its source: the use case behind `publisher inspect`. Nothing is published."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.lazy import dataclass
from publisher.oci.config import ImageConfig
from publisher.oci.document import Document
from publisher.oci.platform import Platform
from publisher.oci.reference import ImageReference
from publisher.repository import Repository
from publisher.sources import Source
from publisher.sources.image import available_platforms, fetch_images
from publisher.tree import layout


@dataclass(frozen=True, slots=True)
class InspectedLayer:
    """One layer; `size` is the compressed size in bytes, `published` None without a repository."""

    digest: str
    media_type: str
    size: int
    published: bool | None


@dataclass(frozen=True, slots=True)
class InspectedImage:
    """One image, for one platform."""

    platform: Platform
    manifest_digest: str
    media_type: str
    image_id: str
    layers: tuple[InspectedLayer, ...]
    config: ImageConfig
    config_document: Document


@dataclass(frozen=True, slots=True)
class Inspection:
    """The result: the index or manifest (`document`), its platforms, and its images."""

    reference: ImageReference
    document: Document
    platforms: tuple[Platform, ...]
    images: tuple[InspectedImage, ...]


def inspect_image(
    source: Source,
    reference: ImageReference,
    platforms: Sequence[Platform],
    repository: Repository | None,
) -> Inspection:
    """Return the images of `source` for `platforms`, or for all platforms if empty."""
    document = source.manifest()
    offered = tuple(available_platforms(source, document))
    images = fetch_images(source, platforms or offered, document.digest)
    return Inspection(
        reference,
        document,
        offered,
        tuple(
            InspectedImage(
                image.platform,
                image.document.digest,
                image.document.media_type,
                image.manifest.image_id,
                tuple(
                    InspectedLayer(
                        layer.digest,
                        layer.media_type,
                        layer.size,
                        repository.exists(layout.layer_directory(layer.digest))
                        if repository
                        else None,
                    )
                    for layer in image.manifest.layers
                ),
                image.config,
                image.config_document,
            )
            for image in images
        ),
    )
