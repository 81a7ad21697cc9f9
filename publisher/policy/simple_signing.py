"""The payloads of cosign's signatures: "simple signing". Pure.

A payload is a JSON document that has the digest of the image. Source: SIGNATURE_SPEC.md of cosign.
"""

from __future__ import annotations

from dataclasses import dataclass

from publisher.errors import InvalidManifest
from publisher.oci.document import read_object

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
"""The annotation of a payload's descriptor that has the signature, in Base64."""

_TYPE = "cosign container image signature"


@dataclass(frozen=True, slots=True)
class AttachedSignature:
    """A payload, and its signature in Base64."""

    payload: bytes
    signature: str

    @property
    def digest(self) -> str:
        """The digest that the payload states, or "" if it is not one of cosign."""
        try:
            value = read_object(self.payload, "signature")
        except InvalidManifest:
            return ""
        critical = value.get("critical")
        if not isinstance(critical, dict) or critical.get("type") != _TYPE:
            return ""
        image = critical.get("image")
        digest = image.get("docker-manifest-digest") if isinstance(image, dict) else None
        return digest if isinstance(digest, str) else ""
