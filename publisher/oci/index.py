"""Image indexes (Docker: manifest lists), and the choice of an image for a platform.

Source: OCI image specification 1.1, image-index page.
"""

from __future__ import annotations

from publisher.errors import InvalidManifest
from publisher.lazy import dataclass
from publisher.oci.descriptor import Descriptor, parse_descriptor
from publisher.oci.document import Document, read_object
from publisher.oci.media_types import INDEX_TYPES, MANIFEST_TYPES
from publisher.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """An image index (Docker: manifest list): descriptors of manifests, by platform."""

    manifests: tuple[Descriptor, ...]

    def choose(self, platform: Platform) -> Descriptor | None:
        """Return the entry for `platform`, or None.

        An entry with an equal variant is preferred, then one without a variant, and then, for a
        platform without a variant, the first one with a variant. Entries that are not images (such
        as attestations, which are for unknown/unknown) never match.
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
        """Return the entries that are images of a known platform."""
        return tuple(
            d
            for d in self.manifests
            if d.platform is not None
            and "unknown" not in (d.platform.os, d.platform.architecture)
            and d.media_type in MANIFEST_TYPES
        )

    def nested(self) -> tuple[Descriptor, ...]:
        """Return the entries that are image indexes themselves."""
        return tuple(d for d in self.manifests if d.media_type in INDEX_TYPES)


def parse_index(document: Document) -> ImageIndex:
    """Read an image index or manifest list."""
    what = f"cannot read image index {document.digest}"
    value = read_object(document.data, f"image index {document.digest}")
    manifests = value.get("manifests")
    if not isinstance(manifests, list):
        raise InvalidManifest(what, why="manifests is not a list")
    if "layers" in value or "config" in value:
        raise InvalidManifest(what, why="it has the fields of an image manifest as well")
    return ImageIndex(
        tuple(parse_descriptor(raw, what, f"manifest {n}") for n, raw in enumerate(manifests, 1))
    )
