"""The CVMFS revision that a repository shows, on its publishing host and on clients."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.repository import Repository

_NAME = "user.fqrn"
_REVISION = "user.revision"


class NotCvmfs(PublisherError):
    """A repository has no revisions that could be compared with those of replicas."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision of the CVMFS repository `name`; `published_at` is None on clients."""

    name: str
    number: int
    published_at: datetime | None = None


def present_revision(repository: Repository) -> Revision:
    """Return the revision that is published; on a client, the one that is mounted.

    It has at least everything that was read from `repository` before.

    Raises:
        NotCvmfs: It is not a CVMFS repository.
        RepositoryError: Its storage is unreachable.
    """
    from publisher.repository.cvmfs.repository import CvmfsRepository

    if isinstance(repository, CvmfsRepository):
        published = repository.configuration.published()
        return Revision(published.name, published.revision, published.published_at)
    mounted = None if repository.local_root is None else _mounted_revision(repository.local_root)
    if mounted is None:
        raise NotCvmfs(
            f"cannot compare {repository.url} with replicas",
            why="it is neither a CVMFS repository that this machine publishes, nor the mount of "
            "one",
            hint="on the publishing host, use --repository cvmfs:NAME; on a machine that mounts "
            "the repository, --repository /cvmfs/NAME",
        )
    return mounted


def _mounted_revision(root: Path) -> Revision | None:
    """Return the revision that the CVMFS client has mounted at `root`; None for another mount."""
    try:
        name, number = (
            os.getxattr(root, each).decode().strip("\0\n ") for each in (_NAME, _REVISION)
        )
        return Revision(name, int(number))
    except (OSError, ValueError):
        return None
