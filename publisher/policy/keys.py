"""Verify signatures with public keys. Pure; the only module that needs `cryptography`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from publisher.policy.model import InvalidPolicy
from publisher.policy.simple_signing import AttachedSignature

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


def parse_public_key(data: bytes, path: str) -> PublicKey:
    """Return the key in the PEM file `path`: ECDSA, Ed25519 or RSA; raise InvalidPolicy."""
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(path, "it is not a public key in PEM form") from error
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise _unusable(path, "it is neither an ECDSA, an Ed25519 nor an RSA key")
    return key


def _unusable(path: str, why: str) -> InvalidPolicy:
    hint = f"write the public key there: cosign public-key --key cosign.key > {path}"
    return InvalidPolicy(f"cannot use the key {path}", why=why, hint=hint)


def why_unsigned(
    attached: Sequence[AttachedSignature], digest: str, keys: Sequence[PublicKey]
) -> str:
    """Return "" if one of `attached` is a signature of the image `digest` by one of `keys`.

    Otherwise return the reason why the image counts as unsigned.
    """
    if not attached:
        return "it has no signature"
    by_key = [each for each in attached if any(_is_signed(each, key) for key in keys)]
    if not by_key:
        return "none of its signatures is by an accepted key"
    if not any(each.digest == digest for each in by_key):
        return f"its signature is for another image than {digest}"
    return ""


def _is_signed(attached: AttachedSignature, key: PublicKey) -> bool:
    try:
        signature = base64.b64decode(attached.signature, validate=True)
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, attached.payload, ec.ECDSA(_hash_for(key.curve)))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, attached.payload, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(signature, attached.payload)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _hash_for(curve: ec.EllipticCurve) -> hashes.HashAlgorithm:
    """Return the hash that sigstore uses with a curve; cosign makes keys of P-256."""
    if curve.key_size >= 512:
        return hashes.SHA512()
    return hashes.SHA384() if curve.key_size >= 384 else hashes.SHA256()
