"""Digests ("algorithm:hex") and their verification.

Source: OCI image specification 1.1, descriptor page, "Digests".
"""

from __future__ import annotations

from publisher.errors import DigestMismatch
from publisher.lazy import pattern

_DIGEST = pattern(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")


def is_digest(text: str) -> bool:
    """Return whether `text` is a sha256 or sha512 digest in lower-case hex."""
    return _DIGEST.match(text) is not None


def digest_hex(digest: str) -> str:
    """Return the hex part of "algorithm:hex", as used in the paths of the published tree."""
    return digest.partition(":")[2]


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """Return the digest of `data` as "algorithm:hex"."""
    import hashlib  # long to load, and most commands compute no digest

    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def digest_algorithm(digest: str) -> str:
    """Return the algorithm of "algorithm:hex"."""
    return digest.partition(":")[0]


def digest_like(data: bytes, digest: str) -> str:
    """Return the digest of `data` by the algorithm of `digest`, to be compared with it."""
    return digest_of(data, digest_algorithm(digest))


def check_digest(data: bytes, expected: str, what: str) -> None:
    """Raise DigestMismatch, naming `what`, unless `data` has the digest `expected`."""
    actual = digest_like(data, expected)
    if actual != expected:
        raise DigestMismatch(what, expected=expected, actual=actual)
