"""Digests: verified, and nothing else accepted."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.errors import DigestMismatch
from publisher.oci.digest import check_digest, digest_hex, digest_of, is_digest


@given(st.binary(), st.sampled_from(["sha256", "sha512"]))
def test_a_digest_is_the_hash_of_the_bytes(data: bytes, algorithm: str) -> None:
    digest = digest_of(data, algorithm)
    assert digest == f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    assert is_digest(digest)
    assert digest_hex(digest) == digest.removeprefix(f"{algorithm}:")
    check_digest(data, digest, "x")


@given(st.binary(min_size=1), st.data(), st.sampled_from(["sha256", "sha512"]))
def test_one_changed_bit_is_a_mismatch_that_names_both_digests(
    data: bytes, choice: st.DataObject, algorithm: str
) -> None:
    expected = digest_of(data, algorithm)
    bit = choice.draw(st.integers(0, 8 * len(data) - 1))
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DigestMismatch) as caught:
        check_digest(bytes(changed), expected, "layer of x")
    assert expected in str(caught.value)
    assert digest_of(bytes(changed), algorithm) in str(caught.value)
    assert "layer of x" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "0" * 64,
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "0" * 128,
        "sha512:" + "0" * 64,
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 64 + "\n",
        "md5:" + "0" * 32,
        "sha256:../" + "0" * 61,
        "sha256:" + "\N{ARABIC-INDIC DIGIT ZERO}" * 64,
    ],
)
def test_a_malformed_or_unsupported_digest_is_not_a_digest(text: str) -> None:
    assert not is_digest(text)
