"""Chain IDs identify a stack of layers."""

from __future__ import annotations

import hashlib

from publisher.oci.chain import chain_ids


def test_a_chain_id_is_that_of_the_specification() -> None:
    # OCI image specification 1.1, "Layer ChainID": ChainID(A|B|C) = Digest(ChainID(A|B) + " " + C)
    def digest(text: str) -> str:
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    a, b, c = (digest(name) for name in "abc")
    assert chain_ids([a, b, c]) == [a, digest(f"{a} {b}"), digest(f"{digest(f'{a} {b}')} {c}")]
    assert chain_ids([]) == []
