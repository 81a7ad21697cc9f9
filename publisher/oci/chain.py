"""Chain IDs: the identity of a stack of layers, independent of how the layers are compressed.

Source: OCI image specification 1.1, config page, "Layer ChainID".
"""

from __future__ import annotations

from collections.abc import Sequence

from publisher.oci.digest import digest_of


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Return the chain ID of each layer with the layers below it, from bottom to top."""
    found: list[str] = []
    for diff_id in diff_ids:
        found.append(digest_of(f"{found[-1]} {diff_id}".encode()) if found else diff_id)
    return found
