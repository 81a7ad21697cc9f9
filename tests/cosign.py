"""Signatures as cosign makes them, by its specification (SIGNATURE_SPEC.md), for tests."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from publisher.oci.digest import digest_of
from publisher.oci.document import Document
from publisher.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGN = "https://sigstore.dev/cosign/sign/v1"
ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"


@dataclass(frozen=True, slots=True)
class Signed:
    """The manifest of a signature with its blobs, ready to be pushed."""

    manifest: Document
    blobs: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Key:
    """A key pair of cosign: ECDSA on the curve P-256."""

    private: ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls) -> Key:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    def write_public(self, path: Path) -> Path:
        """Write cosign.pub: PEM, in the form SubjectPublicKeyInfo."""
        data = self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        path.write_bytes(data)
        return path

    def sign(self, digest: str, name: str = "docker.io/library/x", **changes: Any) -> Signed:
        """Sign the image `digest`; `changes` are other keys of the manifest."""
        payload = payload_for(digest, name)
        signature = self.private.sign(payload, ec.ECDSA(hashes.SHA256()))
        return signature_manifest(payload, base64.b64encode(signature).decode(), **changes)

    def sign_in_bundle(self, digest: str, predicate: str = SIGN) -> Signed:
        """Sign the image `digest` as version 3 of cosign does, in a bundle."""
        return bundle_manifest(digest, self.bundle(digest, predicate))

    def bundle(self, digest: str, predicate: str = SIGN) -> dict[str, Any]:
        """Return a bundle with a statement about the image `digest`."""
        return {
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": "x"}},
            "dsseEnvelope": statement_envelope(digest, predicate, self.private),
        }

    def sign_as_referrer(self, digest: str) -> Signed:
        """Sign the image `digest`, in the form that the referrers API lists."""
        subject = {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1}
        return self.sign(digest, artifactType=ARTIFACT, subject=subject)


def payload_for(digest: str, name: str) -> bytes:
    value = {
        "critical": {
            "identity": {"docker-reference": name},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    return json.dumps(value, separators=(",", ":")).encode()


def signature_manifest(payload: bytes, signature: str, **changes: Any) -> Signed:
    config = b'{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}}'
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [
            {
                "mediaType": PAYLOAD,
                "digest": digest_of(payload),
                "size": len(payload),
                "annotations": {"dev.cosignproject.cosign/signature": signature},
            }
        ],
    } | changes
    data = json.dumps(value).encode()
    blobs = {digest_of(config): config, digest_of(payload): payload}
    return Signed(Document(data, OCI_MANIFEST, digest_of(data)), blobs)


def statement_envelope(
    digest: str, predicate: str, key: ec.EllipticCurvePrivateKey
) -> dict[str, Any]:
    """Return a signed statement about the image `digest`, in an envelope (DSSE)."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": digest.partition(":")[2]}}],
        "predicateType": predicate,
        "predicate": {},
    }
    payload, kind = json.dumps(statement).encode(), "application/vnd.in-toto+json"
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    signature = key.sign(signed, ec.ECDSA(hashes.SHA256()))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }


def bundle_manifest(digest: str, bundle: dict[str, Any]) -> Signed:
    data, empty = json.dumps(bundle).encode(), b"{}"
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(empty)}
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": BUNDLE,
        "config": config | {"size": len(empty)},
        "layers": [{"mediaType": BUNDLE, "digest": digest_of(data), "size": len(data)}],
        "subject": {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1},
    }
    manifest = json.dumps(value).encode()
    blobs = {digest_of(empty): empty, digest_of(data): data}
    return Signed(Document(manifest, OCI_MANIFEST, digest_of(manifest)), blobs)


def referrers_index(*signed: Signed) -> Document:
    """Return the index that a registry without the referrers API has at the tag of an image."""
    entries = [
        {
            "mediaType": each.manifest.media_type,
            "digest": each.manifest.digest,
            "size": len(each.manifest.data),
            "artifactType": json.loads(each.manifest.data)["artifactType"],
        }
        for each in signed
    ]
    data = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    return Document(data, OCI_INDEX, digest_of(data))


def tampered(signed: Signed, digest: str) -> Signed:
    """Return the signature with a payload for another image `digest`, which was not signed."""
    value = json.loads(signed.manifest.data)
    signature = value["layers"][0]["annotations"]["dev.cosignproject.cosign/signature"]
    changes = {key: value[key] for key in ("artifactType", "subject") if key in value}
    if "subject" in changes:
        changes["subject"]["digest"] = digest
    return signature_manifest(payload_for(digest, "docker.io/library/x"), signature, **changes)


def tag_of(digest: str) -> str:
    """Return the tag of the signatures of an image."""
    return digest.replace(":", "-") + ".sig"
