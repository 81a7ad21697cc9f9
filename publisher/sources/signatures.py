"""Read the signatures of cosign that are attached to an image in its registry.

They are manifests with the tag "sha256-<hex>.sig", or manifests that the referrers API of the
registry lists. Source: SIGNATURE_SPEC.md and BUNDLE_SPEC.md of cosign, and the OCI distribution
specification 1.1.
"""

from __future__ import annotations

from collections.abc import Iterator

from publisher.errors import InvalidManifest
from publisher.oci.descriptor import Descriptor, parse_descriptor
from publisher.oci.document import Document, read_object
from publisher.policy.cosign import (
    BUNDLE_TYPE,
    PAYLOAD_TYPE,
    SIGNATURE,
    AttachedSignature,
    bundled_signatures,
    simple_signature,
)
from publisher.sources import Source, SourceError
from publisher.sources.registry.source import RegistrySource

ARTIFACT_TYPES = (
    "application/vnd.dev.cosign.artifact.sig.v1+json",
    PAYLOAD_TYPE,
    BUNDLE_TYPE,
)
"""The artifact types of signatures among the referrers of an image."""

MAX_SIGNATURES = 64
"""The most signatures of one image that are read; a manifest without any counts as one."""


def attached_signatures(source: Source, digest: str) -> Iterator[list[AttachedSignature]]:
    """Yield the signatures that are attached to the image `digest`, a manifest at a time.

    An image without a registry has none.

    Raises:
        SourceError: The registry cannot be read, or the image has more than MAX_SIGNATURES.
    """
    if not isinstance(source, RegistrySource):
        return
    count = 0
    for document in _documents(source, digest):
        payloads = _payloads(document)
        count += max(len(payloads), 1)
        if count > MAX_SIGNATURES:
            raise SourceError(
                f"cannot read the signatures of {digest}",
                why=f"it has more than {MAX_SIGNATURES}",
                hint="delete old signatures of it in its registry",
            )
        yield [each for payload in payloads for each in _signatures(source, payload)]


def _signatures(source: Source, payload: Descriptor) -> list[AttachedSignature]:
    data = source.fetch(payload)
    if payload.media_type == BUNDLE_TYPE:
        return bundled_signatures(data)
    return [simple_signature(data, payload.annotations.get(SIGNATURE, ""))]


def _documents(source: RegistrySource, digest: str) -> Iterator[Document]:
    """Yield the manifests of signatures: the one with the tag, then those of the referrers API."""
    algorithm, _, value = digest.partition(":")
    by_tag = source.attached(f"{algorithm}-{value}.sig")
    if by_tag is not None:
        yield by_tag
    for digest_of_referrer in source.referrers(digest, ARTIFACT_TYPES):
        if by_tag is None or digest_of_referrer != by_tag.digest:
            yield source.manifest(digest_of_referrer)


def _payloads(document: Document) -> list[Descriptor]:
    """Return the descriptors of the payloads in a manifest; none if it is not of signatures."""
    what = f"cannot read the signature {document.digest}"
    layers = read_object(document.data, what).get("layers")
    if not isinstance(layers, list):
        raise InvalidManifest(what, why="layers is not a list")
    found = [parse_descriptor(raw, what, f"layer {n}") for n, raw in enumerate(layers, 1)]
    return [each for each in found if each.media_type in (PAYLOAD_TYPE, BUNDLE_TYPE)]
