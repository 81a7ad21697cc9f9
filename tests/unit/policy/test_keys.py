"""Signatures are verified with public keys of every kind that cosign accepts."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519

from publisher.policy import InvalidPolicy
from publisher.policy.cosign import AttachedSignature, bundled_signatures, simple_signature
from publisher.policy.keys import PublicKey, parse_public_key, why_unsigned
from tests import cosign
from tests.cosign import Key

ONE, TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


def pem(key: PublicKey | x25519.X25519PublicKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form)


def attached(payload: bytes, signature: bytes) -> AttachedSignature:
    return simple_signature(payload, base64.b64encode(signature).decode())


def test_a_signature_by_an_accepted_key_over_the_digest_counts() -> None:
    payload = cosign.payload_for(ONE, "x")
    ecdsa = ec.generate_private_key(ec.SECP256R1())
    large = ec.generate_private_key(ec.SECP384R1())
    edwards = ed25519.Ed25519PrivateKey.generate()
    old = rsa.generate_private_key(65537, 2048)
    for private, signature in (
        (ecdsa, ecdsa.sign(payload, ec.ECDSA(hashes.SHA256()))),
        (large, large.sign(payload, ec.ECDSA(hashes.SHA384()))),
        (large, large.sign(payload, ec.ECDSA(hashes.SHA256()))),
        (edwards, edwards.sign(payload)),
        (old, old.sign(payload, padding.PKCS1v15(), hashes.SHA256())),
    ):
        key = parse_public_key(pem(private.public_key()), "k")
        good = attached(payload, signature)
        other_key = Key.generate().private.public_key()
        assert why_unsigned([good], ONE, [other_key, key]) == ""
        assert why_unsigned([good], ONE, [other_key]) == (
            "none of its signatures is by an accepted key"
        )
        assert "for another image" in why_unsigned([good], TWO, [key])
        changed = attached(cosign.payload_for(TWO, "x"), signature)
        assert "accepted key" in why_unsigned([changed], TWO, [key])
        # The payload of the right image, and the signature of another payload, are not combined.
        both = [good, attached(cosign.payload_for(TWO, "x"), b"x")]
        assert "for another image" in why_unsigned(both, TWO, [key])
        for broken in ("", "?", "AAAA"):
            assert why_unsigned([simple_signature(payload, broken)], ONE, [key])


def test_payloads_of_other_kinds_are_not_signatures_of_images() -> None:
    key = Key.generate()
    for payload in (
        b"",
        b"[]",
        b"{}",
        b'{"critical":{"type":"x","image":{"docker-manifest-digest":"%s"}}}' % ONE.encode(),
        b'{"critical":{"type":"cosign container image signature","image":[]}}',
    ):
        signature = key.private.sign(payload, ec.ECDSA(hashes.SHA256()))
        public = key.private.public_key()
        assert "for another image" in why_unsigned([attached(payload, signature)], ONE, [public])


def test_a_bundle_has_a_signed_statement_about_the_image() -> None:
    key, other = Key.generate(), Key.generate()
    public = [key.private.public_key()]

    def why(bundle: dict[str, Any], digest: str = ONE) -> str:
        return why_unsigned(bundled_signatures(json.dumps(bundle).encode()), digest, public)

    good = key.bundle(ONE)
    assert why(good) == ""
    assert "for another image" in why(good, TWO)
    assert "accepted key" in why(other.bundle(ONE))
    assert "for another image" in why(key.bundle(ONE, "https://slsa.dev/provenance/v1"))
    changed = key.bundle(ONE)
    changed["dsseEnvelope"]["payload"] = key.bundle(TWO)["dsseEnvelope"]["payload"]
    assert "accepted key" in why(changed, TWO)
    malformed: tuple[dict[str, Any], ...] = ({}, {"dsseEnvelope": 1}, {"messageSignature": {}})
    for broken in malformed:
        assert why(broken) == "it has no signature"
    for part in ("payload", "payloadType", "signatures"):
        damaged = key.bundle(ONE)
        damaged["dsseEnvelope"][part] = "?"
        assert why(damaged)


def test_files_that_are_not_public_keys_are_refused(tmp_path: Path) -> None:
    key = Key.generate()
    path = key.write_public(tmp_path / "cosign.pub")
    assert parse_public_key(path.read_bytes(), "k") == key.private.public_key()
    secret = key.private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for_exchange = x25519.X25519PrivateKey.generate().public_key()
    for data in (b"", b"ssh-ed25519 AAAA", secret, pem(for_exchange)):
        with pytest.raises(InvalidPolicy, match="cannot use the key k"):
            parse_public_key(data, "k")
