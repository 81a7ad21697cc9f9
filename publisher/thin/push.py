"""Pushing a thin image to a registry: only what it lacks, and never on trust."""

from __future__ import annotations

from typing import Protocol

from publisher.oci.document import Document
from publisher.thin import ThinImageError
from publisher.thin.image import ThinSet


class Destination(Protocol):
    """One image repository at a registry that takes images."""

    name: str

    def manifest_digest(self, reference: str) -> str | None:
        """The digest of the manifest that a tag or digest names; None where there is none."""

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is there already."""

    def put_blob(self, blob: Document) -> None:
        """Upload a blob."""

    def put_manifest(self, manifest: Document, reference: str) -> None:
        """Upload a manifest or index under a tag or its digest."""


def push_set(thin: ThinSet, destination: Destination, tag: str) -> bool:
    """Make `tag` name the thin image; False if it does already, and nothing was sent.

    Raises ThinImageError when the registry has another manifest under the tag afterwards.
    """
    if destination.manifest_digest(tag) == thin.top.digest:
        return False
    for image in thin.images:
        for blob in (image.config, image.layer):
            if not destination.has_blob(blob.digest):
                destination.put_blob(blob)
        if image.manifest != thin.top:
            destination.put_manifest(image.manifest, image.manifest.digest)
    destination.put_manifest(thin.top, tag)
    found = destination.manifest_digest(tag)
    if found != thin.top.digest:
        raise ThinImageError(
            f"cannot push {destination.name}:{tag}",
            why=f"{thin.top.digest} was accepted, but the tag names {found or 'nothing'}",
            hint="does somebody else push that tag, or does the registry rewrite manifests?",
        )
    return True
