"""Whether images have the signatures that a policy requires."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from publisher.policy.cosign import AttachedSignature
from publisher.policy.keys import PublicKey, why_unsigned
from publisher.sources import Source
from publisher.sources.signatures import attached_signatures


class CosignSignatures:
    """Verifies signatures of cosign with public keys, which are given by the paths of their files.

    No other service than the image's registry is used: signatures are not looked up in a
    transparency log.
    """

    def __init__(self, keys: Mapping[str, PublicKey]) -> None:
        self._keys = keys

    def why_unsigned(self, source: Source, digest: str, keys: Sequence[str]) -> str:
        """Return "" if the image `digest` is signed by one of the keys in the files `keys`."""
        accepted = [self._keys[path] for path in keys]
        found: list[AttachedSignature] = []
        for batch in attached_signatures(source, digest):
            found += batch
            if not why_unsigned(found, digest, accepted):
                return ""
        return why_unsigned(found, digest, accepted)
