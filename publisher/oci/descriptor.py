"""Descriptors: how manifests and indexes name blobs.

Source: OCI image specification 1.1, descriptor page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field

from publisher.errors import InvalidManifest
from publisher.lazy import dataclass
from publisher.oci.digest import is_digest
from publisher.oci.platform import Platform

MAX_BLOB_BYTES = 2**63 - 1
"""The specification's sizes are signed and of 64 bits."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """How a manifest names a blob: media type, digest ("algorithm:hex") and size in bytes.

    `artifact_type` is that of a manifest that is not an image, in an index of referrers; or "".
    """

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""


def check_size(data: bytes, descriptor: Descriptor) -> None:
    """Raise InvalidManifest unless `data` has as many bytes as its descriptor states.

    The digest does not imply it, and other programs may rely on the size.
    """
    if len(data) != descriptor.size:
        raise InvalidManifest(
            f"cannot use {descriptor.digest}",
            why=f"its descriptor states {descriptor.size} bytes, and it has {len(data)}",
        )


def parse_descriptor(raw: object, what: str, name: str) -> Descriptor:
    """Return the descriptor in the JSON value `raw`.

    Args:
        raw: A value of a parsed manifest or index.
        what: The `what` of the error: the action that needs the descriptor.
        name: The descriptor's place in the document ("config", "layer 2"), for the error.

    Raises:
        InvalidManifest: Media type, digest or size is missing or malformed.
    """
    if not isinstance(raw, dict):
        raise InvalidManifest(what, why=f"{name} is not an object")
    media_type = raw.get("mediaType", raw.get("mediatype"))
    digest, size = raw.get("digest"), raw.get("size")
    if not isinstance(media_type, str):
        raise InvalidManifest(what, why=f"{name} has no media type")
    if not isinstance(digest, str) or not is_digest(digest):
        raise InvalidManifest(what, why=f"{name} has no sha256 or sha512 digest: {digest!r}")
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
        parse_strings(raw.get("annotations")),
        parse_strings(raw).get("artifactType", ""),
    )


def _platform(raw: object) -> Platform | None:
    if not isinstance(raw, dict):
        return None
    os, architecture = raw.get("os"), raw.get("architecture")
    variant = raw.get("variant") or ""
    if not (isinstance(os, str) and isinstance(architecture, str) and isinstance(variant, str)):
        return None
    return Platform(os, architecture, variant)


def parse_strings(raw: object) -> Mapping[str, str]:
    """Return the string values of a JSON object; all else, such as null, is left out."""
    items: Iterable[tuple[object, object]] = raw.items() if isinstance(raw, dict) else ()
    return {k: v for k, v in items if isinstance(k, str) and isinstance(v, str)}
