"""The revision that a replica serves, and why it cannot be determined."""

from __future__ import annotations

from pathlib import Path

from publisher.lazy import dataclass
from publisher.repository.cvmfs.signed_files import RepositoryManifest
from publisher.sources.errors import SourceError


class ReplicaError(SourceError):
    """The revision of a replica could not be determined; a later try may succeed.

    `url` is the address of the replica.
    """

    def __init__(self, url: str, *, why: str, hint: str = "") -> None:
        super().__init__(f"cannot read the revision of the replica {url}", why=why, hint=hint)
        self.url = url


class UntrustedReplica(ReplicaError):
    """What a replica serves is of another repository, or not signed as it has to be."""


class UnusableKey(SourceError):
    """A file with the public key of a repository cannot be used; `path` is its path."""

    def __init__(self, path: Path, *, why: str) -> None:
        super().__init__(
            f"cannot use the public key {path}",
            why=why,
            hint="name the file with the master key of the repository: --public-key FILE",
        )
        self.path = str(path)


@dataclass(frozen=True, slots=True)
class ReplicaRevision:
    """The revision that a replica serves; `verified` is whether its signatures were checked."""

    url: str
    manifest: RepositoryManifest
    verified: bool
