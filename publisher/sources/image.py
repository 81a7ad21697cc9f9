"""Fetch and verify manifests and configs of the requested platforms from a source."""

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
"""The most levels of nested indexes; builders write at most two."""
MAX_INDEXES = 32
_SHOWN = 16
"""The most platforms that a message names."""


class PlatformNotFound(SourceError):
    """The image exists, but not for a requested platform.

    `wanted` is that platform, as "os/architecture[/variant]"; `available` are those that exist.
    """

    def __init__(
        self, what: str, *, wanted: str, available: Sequence[str], why: str, hint: str
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.wanted = wanted
        self.available = tuple(available)


def fetch_images(
    source: Source, platforms: Sequence[Platform], digest: str | None = None
) -> list[PlatformImage]:
    """Return the image at `source` for each of the platforms, in their order.

    Args:
        source: The source of the image.
        platforms: The requested platforms.
        digest: The digest that the reference was resolved to; a tag that moves in the meantime
            then has no effect.

    Raises:
        PlatformNotFound: The image does not exist for a platform; the error names the others.
        InvalidManifest: It is not an image, or index, manifest and config contradict each other.
        SourceError: The source cannot be read.
    """
    document = source.manifest(digest)
    if document.media_type not in INDEX_TYPES:
        image = _load(source, document, None)
        for platform in platforms:
            if not _serves(image.config.platform, platform):
                offered = str(image.config.platform.normalized())
                raise _not_found(platform, [offered])
        return [image] * len(platforms)
    index = ImageIndex(tuple(_flatten(source, document)))
    if any(index.choose(platform) is None for platform in platforms):
        index = ImageIndex(tuple(_with_platforms(source, index)))
    chosen = [(platform, _choose(index, platform)) for platform in platforms]
    images: dict[str, PlatformImage] = {}
    for platform, descriptor in chosen:
        if descriptor.digest in images:
            continue
        image = _load(source, _document(source, descriptor), document.digest)
        if not _is_for(image.config.platform, platform):
            raise InvalidManifest(
                f"cannot publish {descriptor.digest}",
                why=f"its index states {platform}, its config {image.config.platform.normalized()}",
            )
        images[descriptor.digest] = image
    return [images[descriptor.digest] for _, descriptor in chosen]


def available_platforms(source: Source, document: Document) -> list[Platform]:
    """Return the platforms that a manifest or index of `source` offers."""
    if document.media_type in INDEX_TYPES:
        index = ImageIndex(tuple(_flatten(source, document)))
        entries = index.images() or ImageIndex(tuple(_with_platforms(source, index))).images()
        return [entry.platform.normalized() for entry in entries if entry.platform]
    return [_load(source, document, None).platform]


def _document(source: Source, entry: Descriptor) -> Document:
    """Return the manifest or index that an entry of an index names, after checking its size."""
    document = source.manifest(entry.digest)
    check_size(document.data, entry)
    return document


def _flatten(source: Source, document: Document) -> Iterator[Descriptor]:
    """Yield the entries of an index and of its nested indexes, each of which is read once."""
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
            pending.append((_document(source, entry), depth + 1))


def _with_platforms(source: Source, index: ImageIndex) -> Iterator[Descriptor]:
    """Yield the entries; set a missing platform to that of the entry's config.

    Some builders write entries without a platform.
    """
    read = 0
    for entry in index.manifests:
        if entry.platform is None and entry.media_type in MANIFEST_TYPES:
            read += 1
            if read > MAX_INDEXES:
                raise InvalidManifest(
                    "cannot read an image index",
                    why=f"more than {MAX_INDEXES} of its images have no platform",
                )
            try:
                image = _load(source, _document(source, entry), None)
            except InvalidManifest:
                continue  # an artifact, not an image
            yield replace(entry, platform=image.config.platform)
        else:
            yield entry


def _choose(index: ImageIndex, platform: Platform) -> Descriptor:
    found = index.choose(platform)
    if found is None:
        offered = {str(entry.platform.normalized()) for entry in index.images() if entry.platform}
        raise _not_found(platform, sorted(offered))
    return found


def _not_found(platform: Platform, offered: Sequence[str]) -> PlatformNotFound:
    more = f", and {len(offered) - _SHOWN} more" if len(offered) > _SHOWN else ""
    one = f"{offered[0]}" if offered else ""
    return PlatformNotFound(
        f"the image does not exist for {platform}",
        wanted=str(platform),
        available=offered,
        why=f"it exists for {', '.join(offered[:_SHOWN])}{more}"
        if offered
        else "it has no platform",
        hint=f"write platforms: [{one}] in the wish list, or --platform {one}" if one else "",
    )


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
    """Return whether an image is for `wanted`; ignore a variant that only one of them has."""
    if not _is_for(offered, wanted):
        return False
    if "" in (offered.variant, wanted.variant):
        return True
    return offered.normalized().variant == wanted.normalized().variant


def _is_for(offered: Platform, wanted: Platform) -> bool:
    """Return whether system and architecture agree; the variant of the index applies."""
    offered, wanted = offered.normalized(), wanted.normalized()
    return (offered.os, offered.architecture) == (wanted.os, wanted.architecture)
