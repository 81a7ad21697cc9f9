"""Verify signatures of images with public keys. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from publisher.policy.cosign import AttachedSignature
from publisher.policy.model import InvalidPolicy

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
    given = attached.signature, attached.signed
    if isinstance(key, ec.EllipticCurvePublicKey):
        return any(_verifies(partial(key.verify, *given, each)) for each in _schemes(key.curve))
    if isinstance(key, rsa.RSAPublicKey):
        return _verifies(partial(key.verify, *given, padding.PKCS1v15(), hashes.SHA256()))
    return _verifies(partial(key.verify, *given))


def _verifies(verify: Callable[[], None]) -> bool:
    try:
        verify()
    except InvalidSignature:
        return False
    return True


def _schemes(curve: ec.EllipticCurve) -> list[ec.ECDSA]:
    """Return the schemes for a curve: SHA-256 by cosign's specification, and that of bundles."""
    larger = {384: hashes.SHA384(), 521: hashes.SHA512()}.get(curve.key_size)
    return [ec.ECDSA(each) for each in (hashes.SHA256(), larger) if each is not None]
