"""Verify signatures by identities, as `cosign sign` makes them without a key.

The signer has a certificate for a few minutes, which a certificate authority of Sigstore has issued
for an identity of an OpenID Connect provider; the signature is in a transparency log. The package
`sigstore` verifies all of that without a network.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from cryptography import x509
from sigstore.errors import Error, VerificationError
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier
from sigstore.verify.policy import AllOf, AnyOf, OIDCIssuer, OIDCIssuerV2

from publisher.policy.cosign import STATEMENT, stated_digest
from publisher.policy.model import InvalidPolicy, Signer


class SigstoreIdentities:
    """Verifies identities with one trusted root, or with that of the public instance of Sigstore.

    Args:
        trusted_root: The path of its file; "" for the one in the package `sigstore`, or in its
            cache, which is not updated here.

    Raises:
        InvalidPolicy: The file is unusable.
    """

    def __init__(self, trusted_root: str) -> None:
        try:
            if trusted_root:
                self._verifier = Verifier(trusted_root=TrustedRoot.from_file(trusted_root))
            else:
                self._verifier = Verifier.production(offline=True)
        except (OSError, ValueError, Error) as error:
            raise InvalidPolicy(
                f"cannot use the trusted root {trusted_root or 'of Sigstore'}",
                why=str(error).splitlines()[0],
                hint="write the trusted root to a file, and name it as trusted-root",
            ) from error

    def why_unsigned(self, bundle: bytes, digest: str, signers: Sequence[Signer]) -> str:
        """Return "" if a bundle has a signature of `digest` by a signer, else why it has not."""
        accepted = AnyOf(
            [
                AllOf(
                    [
                        AnyOf([OIDCIssuer(each.issuer), OIDCIssuerV2(each.issuer)]),
                        _Subject(each.subject),
                    ]
                )
                for each in signers
            ]
        )
        try:
            kind, statement = self._verifier.verify_dsse(Bundle.from_json(bundle), accepted)
        except (Error, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return f"its signature is not by an accepted identity: {reason}"
        if kind != STATEMENT or stated_digest(statement) != digest:
            return f"its signature is for another image than {digest}"
        return ""


class _Subject:
    """A certificate is for a subject that matches a glob."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def verify(self, cert: x509.Certificate) -> None:
        """Raise VerificationError if it is for another subject."""
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [
            *names.get_values_for_type(x509.UniformResourceIdentifier),
            *names.get_values_for_type(x509.RFC822Name),
        ]
        if not any(fnmatch.fnmatchcase(name, self._pattern) for name in found):
            raise VerificationError(f"it is by {', '.join(found) or 'another kind of subject'}")
