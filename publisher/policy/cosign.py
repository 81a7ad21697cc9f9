"""The signatures that cosign attaches to images. Pure.

Until version 2, cosign signs a payload in the form "simple signing", which has the digest of the
image (SIGNATURE_SPEC.md of cosign). Since version 3, it signs an in-toto statement about the image,
in an envelope (DSSE) within a bundle of Sigstore (BUNDLE_SPEC.md of cosign).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from publisher.errors import InvalidManifest
from publisher.lazy import dataclass
from publisher.oci.document import read_object

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
"""The annotation of a payload's descriptor that has the signature, in Base64."""

_SIMPLE = "cosign container image signature"
STATEMENT = "application/vnd.in-toto+json"
_SIGNED = "https://sigstore.dev/cosign/sign/v1"
"""The predicate of a signature; a key may also sign other statements about an image."""


@dataclass(frozen=True, slots=True)
class AttachedSignature:
    """The bytes that were signed, the signature, and the digest of the image that they state.

    `digest` is "" if the bytes are not a signature of an image. `bundle` is the bundle that has the
    signature, or empty.
    """

    signed: bytes
    signature: bytes
    digest: str
    bundle: bytes = b""


def simple_signature(payload: bytes, signature: str) -> AttachedSignature:
    """Return the signature of a payload, from its annotation in Base64."""
    critical = _object(_json(payload).get("critical"))
    digest = _object(critical.get("image")).get("docker-manifest-digest")
    is_image = critical.get("type") == _SIMPLE and isinstance(digest, str)
    return AttachedSignature(payload, _decode(signature), str(digest) if is_image else "")


def bundled_signatures(bundle: bytes) -> list[AttachedSignature]:
    """Return the signature in a bundle; none if it has no statement, or several signatures.

    The specification of bundles allows one signature.
    """
    envelope = _object(_json(bundle).get("dsseEnvelope"))
    kind, payload = envelope.get("payloadType"), _decode(envelope.get("payload"))
    signatures = envelope.get("signatures")
    if kind != STATEMENT or not isinstance(signatures, list) or len(signatures) != 1:
        return []
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    return [
        AttachedSignature(signed, _decode(_object(each).get("sig")), stated_digest(payload), bundle)
        for each in signatures
    ]


def stated_digest(statement: bytes) -> str:
    """Return the digest of the only subject of a statement of cosign; "" for other statements."""
    value = _json(statement)
    subjects = value.get("subject")
    if value.get("predicateType") != _SIGNED or not isinstance(subjects, list):
        return ""
    if len(subjects) != 1:
        return ""
    digest = _object(_object(subjects[0]).get("digest")).get("sha256")
    return f"sha256:{digest}" if isinstance(digest, str) else ""


def _json(data: bytes) -> Mapping[str, object]:
    try:
        return read_object(data, "a signature")
    except InvalidManifest:
        return {}


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _decode(text: object) -> bytes:
    """Return what `text` is in Base64; nothing, which is never a valid signature, for all else."""
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except binascii.Error:
        return b""
