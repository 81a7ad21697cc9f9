"""Whether images have the signatures that a policy requires."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from publisher.policy.cosign import AttachedSignature
from publisher.policy.keys import PublicKey, why_unsigned
from publisher.policy.model import SignatureRule, Signer
from publisher.sources import Source
from publisher.sources.signatures import attached_signatures


class Identities(Protocol):
    """Verifies signatures by identities: see `ingest.identities`."""

    def why_unsigned(self, bundle: bytes, digest: str, signers: Sequence[Signer]) -> str:
        """Return "" if a bundle has a signature of `digest` by a signer, else why it has not."""


class CosignSignatures:
    """Verifies the signatures that cosign attaches to images.

    No other service than the image's registry is used.

    Args:
        keys: The public keys that rules name, by their paths.
        identities: What verifies signers, by the path of the trusted root.
    """

    def __init__(self, keys: Mapping[str, PublicKey], identities: Mapping[str, Identities]) -> None:
        self._keys = keys
        self._identities = identities

    def why_unsigned(
        self, source: Source, digest: str, rules: Sequence[SignatureRule]
    ) -> list[str]:
        """Return for each rule "" if the image `digest` is signed as it requires, else why not.

        Each signature is read once, and none after those that satisfy all rules.
        """
        found: list[AttachedSignature] = []
        violated = list(rules)
        for batch in attached_signatures(source, digest):
            found += batch
            violated = [rule for rule in violated if self._why_unsigned(batch, digest, rule)]
            if not violated:
                break
        return [
            self._why_unsigned(found, digest, rule) if rule in violated else "" for rule in rules
        ]

    def _why_unsigned(
        self, found: Sequence[AttachedSignature], digest: str, rule: SignatureRule
    ) -> str:
        why = why_unsigned(found, digest, [self._keys[path] for path in rule.keys])
        if not why or not found or not rule.signers:
            return why
        bundles = [each.bundle for each in found if each.bundle]
        if not bundles:
            return f"{why}, and it has no bundle with an identity"
        identities = self._identities[rule.trusted_root]
        reasons = [identities.why_unsigned(each, digest, rule.signers) for each in bundles]
        return "" if "" in reasons else reasons[-1]
