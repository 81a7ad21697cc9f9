"""Check by which keys a CVMFS repository is signed. No I/O: the caller fetches the files.

1. The whitelist is signed by the master key of the repository, is for this repository, and has
   not expired.
2. The manifest names its certificate by a hash, and the fingerprint of the certificate is in the
   whitelist.
3. The key of the certificate signed the manifest, which is for this repository.

These are the checks of CVMFS's clients (cvmfs/manifest_fetch.cc and cvmfs/whitelist.cc). The master
key signs the line of the hash itself, without naming a hash algorithm in the signature; a
certificate signs the SHA-1 of that line. Both signatures are PKCS #1 v1.5.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from publisher.repository.cvmfs.signed_files import (
    DamagedFile,
    Letter,
    RepositoryManifest,
    UnsupportedHash,
    Whitelist,
    hash_of,
    parse_whitelist,
    split_letter,
)
from publisher.times import format_time

MAX_CERTIFICATE_BYTES = 64 * 1024
"""The most bytes of a certificate, compressed and uncompressed. Real ones have about 1 kB."""


class Untrusted(Exception):
    """A signed file is not to be trusted; the text is the reason."""


def parse_public_key(data: bytes) -> RSAPublicKey:
    """Return the master key in a PEM file; raise ValueError for anything else."""
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("it is not a public key in PEM form") from error
    if not isinstance(key, RSAPublicKey):
        raise ValueError("it is not an RSA key, as those of CVMFS repositories are")
    return key


def check_whitelist(
    data: bytes, name: str, keys: Sequence[RSAPublicKey], now: datetime
) -> Whitelist:
    """Return the whitelist of the repository `name`, signed by one of its master `keys`.

    Raises:
        DamagedFile: It does not have the form of a whitelist.
        Untrusted: It is signed by another key, is of another repository, has expired, or requires
            checks that are not implemented.
    """
    letter = split_letter(data)
    if not any(_is_signed_by(letter, key) for key in keys):
        raise Untrusted("its whitelist is not signed by the key of the repository")
    whitelist = parse_whitelist(letter.text)
    if whitelist.name != name:
        raise Untrusted(f"its whitelist is that of the repository {whitelist.name}")
    if whitelist.is_expired(now):
        raise Untrusted(f"its whitelist expired at {format_time(whitelist.expires)}")
    if whitelist.rules:
        raise Untrusted(
            f"its whitelist requires a check that is not implemented ({whitelist.rules[0]})"
        )
    return whitelist


def check_manifest(
    letter: Letter, manifest: RepositoryManifest, certificate: bytes, whitelist: Whitelist
) -> None:
    """Check that a certificate in the whitelist signed the manifest.

    Args:
        letter: The signed file of the manifest.
        manifest: Its content.
        certificate: The object that the manifest names, compressed as it is stored.
        whitelist: A whitelist that was checked.

    Raises:
        DamagedFile: The certificate does not match its hash, or is malformed.
        UnsupportedHash: This Python cannot compute a hash that the check needs.
        Untrusted: The certificate is not in the whitelist, or did not sign the manifest.
    """
    if hash_of(certificate, like=manifest.certificate) != manifest.certificate:
        raise DamagedFile("its certificate does not match its hash")
    signer = _parse_certificate(_decompress(certificate))
    encoded = signer.public_bytes(serialization.Encoding.DER)
    if not _is_listed(encoded, whitelist):
        raise Untrusted("its certificate is not in the whitelist")
    try:
        key = signer.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Untrusted("its certificate has a key of an unknown type") from error
    if not isinstance(key, RSAPublicKey):
        raise Untrusted("its certificate has another key than RSA, which is not implemented")
    try:
        key.verify(letter.signature, letter.hash_line.encode(), padding.PKCS1v15(), hashes.SHA1())
    except InvalidSignature as error:
        raise Untrusted("its signature is not by its certificate") from error


def _is_listed(encoded: bytes, whitelist: Whitelist) -> bool:
    """Return whether a certificate is in the whitelist, which may have several kinds of hashes.

    Raises:
        UnsupportedHash: None of the hashes that this Python can compute is that of the certificate,
            and there are others.
    """
    unsupported: UnsupportedHash | None = None
    for fingerprint in sorted(whitelist.fingerprints):
        try:
            if hash_of(encoded, like=fingerprint) == fingerprint:
                return True
        except UnsupportedHash as error:
            unsupported = error
    if unsupported is not None:
        raise unsupported
    return False


def _is_signed_by(letter: Letter, key: RSAPublicKey) -> bool:
    """Return whether the master key `key` signed the letter."""
    try:
        signed = key.recover_data_from_signature(letter.signature, padding.PKCS1v15(), None)
    except (InvalidSignature, ValueError):
        return False
    return signed == letter.hash_line.encode()


def _decompress(data: bytes) -> bytes:
    decoder = zlib.decompressobj()
    try:
        found = decoder.decompress(data, MAX_CERTIFICATE_BYTES + 1)
    except zlib.error as error:
        raise DamagedFile("its certificate is not compressed") from error
    if len(found) > MAX_CERTIFICATE_BYTES or not decoder.eof:
        raise DamagedFile("its certificate is cut off, or too large")
    return found


def _parse_certificate(data: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise DamagedFile("its certificate is malformed") from error
