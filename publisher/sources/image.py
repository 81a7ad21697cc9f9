"""From a source to the images of the platforms that are wanted: manifests and configs, verified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from publisher.errors import InvalidManifest
from publisher.oci.config import parse_config
from publisher.oci.descriptor import Descriptor, check_size
from publisher.oci.document import Document
from publisher.oci.image import PlatformImage
from publisher.oci.index import ImageIndex, parse_index
from publisher.oci.manifest import check_consistency, parse_manifest
from publisher.oci.media_types import INDEX_TYPES, MANIFEST_TYPES
from publisher.oci.platform import Platform
from publisher.sources import Source, SourceError

MAX_DEPTH = 4
"""Indexes within indexes; one within one is what builders write."""
MAX_INDEXES = 32
_NAMED = 16
"""How many platforms a message names. Real images have less."""


class PlatformNotFound(SourceError):
    """The image exists, but not for a platform that was asked for."""


def fetch_images(
    source: Source, platforms: Sequence[Platform], digest: str | None = None
) -> list[PlatformImage]:
    """The image that `source` names, for each of `platforms`: as many, in the same order.

    `digest` pins what the reference was resolved to, so that a tag that moves meanwhile changes
    nothing. Raises PlatformNotFound, naming the platforms there are, and InvalidManifest for
    things that are not images or do not fit together.
    """
    document = source.manifest(digest)
    if document.media_type not in INDEX_TYPES:
        image = _load(source, document, None)
        for platform in platforms:
            if not _serves(image.config.platform, platform):
                raise PlatformNotFound(
                    f"the image is not for {platform}",
                    why=f"it is one for {image.config.platform.normalized()}",
                    hint="name its platform in the wish",
                )
        return [image] * len(platforms)
    index = ImageIndex(tuple(_flatten(source, document)))
    if any(index.choose(platform) is None for platform in platforms):
        index = ImageIndex(tuple(_with_platforms(source, index)))
    chosen = [(platform, _choose(index, platform)) for platform in platforms]
    images: dict[str, PlatformImage] = {}
    for platform, descriptor in chosen:
        if descriptor.digest in images:
            continue
        image = _load(source, _fetch(source, descriptor), document.digest)
        if not _is_for(image.config.platform, platform):
            raise InvalidManifest(
                f"cannot publish {descriptor.digest}",
                why=f"its index says {platform}, its config {image.config.platform.normalized()}",
            )
        images[descriptor.digest] = image
    return [images[descriptor.digest] for _, descriptor in chosen]


def available_platforms(source: Source, document: Document) -> list[Platform]:
    """The platforms that a manifest or index offers."""
    if document.media_type in INDEX_TYPES:
        index = ImageIndex(tuple(_flatten(source, document)))
        entries = index.images() or ImageIndex(tuple(_with_platforms(source, index))).images()
        return [entry.platform.normalized() for entry in entries if entry.platform]
    return [_load(source, document, None).platform]


def _flatten(source: Source, document: Document) -> Iterator[Descriptor]:
    """The entries of an index, with those of the indexes in it; each index is read once."""
    seen = {document.digest}
    pending = [(document, 1)]
    while pending:
        current, depth = pending.pop(0)
        index = parse_index(current)
        nested = index.nested()
        yield from (entry for entry in index.manifests if entry not in nested)
        for entry in nested:
            if entry.digest in seen:
                continue
            if depth >= MAX_DEPTH or len(seen) >= MAX_INDEXES:
                raise InvalidManifest(
                    f"cannot read image index {document.digest}",
                    why=f"its indexes are more than {MAX_DEPTH} deep, or more than {MAX_INDEXES}",
                )
            seen.add(entry.digest)
            pending.append((_fetch(source, entry), depth + 1))


def _with_platforms(source: Source, index: ImageIndex) -> Iterator[Descriptor]:
    """The entries; those without a platform, which some builders leave out, with their config's."""
    asked = 0
    for entry in index.manifests:
        if entry.platform is None and entry.media_type in MANIFEST_TYPES:
            asked += 1
            if asked > MAX_INDEXES:
                raise InvalidManifest(
                    "cannot read an image index",
                    why=f"more than {MAX_INDEXES} of its images have no platform",
                )
            try:
                image = _load(source, _fetch(source, entry), None)
            except InvalidManifest:
                continue  # an artifact beside the images: nothing that could be asked for
            yield replace(entry, platform=image.config.platform)
        else:
            yield entry


def _choose(index: ImageIndex, platform: Platform) -> Descriptor:
    found = index.choose(platform)
    if found is None:
        offered = {str(entry.platform.normalized()) for entry in index.images() if entry.platform}
        named = ", ".join(sorted(offered)[:_NAMED])
        more = f", and {len(offered) - _NAMED} more" if len(offered) > _NAMED else ""
        raise PlatformNotFound(
            f"the image is not there for {platform}",
            why=f"it is for {named}{more}" if offered else "it is for none",
        )
    return found


def _fetch(source: Source, entry: Descriptor) -> Document:
    """Return the manifest or index that an entry of an index names."""
    document = source.manifest(entry.digest)
    check_size(document.data, entry)
    return document


def _load(source: Source, document: Document, index_digest: str | None) -> PlatformImage:
    manifest = parse_manifest(document)
    data = source.fetch(manifest.config)
    config = parse_config(data, manifest.config.digest)
    check_consistency(manifest, config, document.digest)
    config_document = Document(data, manifest.config.media_type, manifest.config.digest)
    return PlatformImage(
        config.platform.normalized(), document, manifest, config_document, config, index_digest
    )


def _serves(offered: Platform, wanted: Platform) -> bool:
    """Whether an image says it is for `wanted`; a variant that only one names is no obstacle."""
    if not _is_for(offered, wanted):
        return False
    if "" in (offered.variant, wanted.variant):
        return True
    return offered.normalized().variant == wanted.normalized().variant


def _is_for(offered: Platform, wanted: Platform) -> bool:
    """Whether system and architecture agree: the variant is for the index to tell."""
    offered, wanted = offered.normalized(), wanted.normalized()
    return (offered.os, offered.architecture) == (wanted.os, wanted.architecture)
