"""Why an image failed, in one word, from the type of its exception."""

from __future__ import annotations

import errno

from publisher.errors import DigestMismatch, InvalidManifest, InvalidReference, is_process_limit
from publisher.ingest.admission import OutsidePrefix, PolicyViolated
from publisher.ingest.wanted import NotLocked
from publisher.layers.errors import LayerError, LimitExceeded, NoTemporarySpace
from publisher.oci.tag_patterns import InvalidPattern
from publisher.problems import InvalidFile
from publisher.repository import ContentRefused, DiskFull, OutOfSpace, PathTaken, RepositoryError
from publisher.runtimes.squashfs_file import SquashfsError
from publisher.sandbox import SandboxError
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.errors import AuthenticationFailed, RateLimited, RegistryNotPermitted
from publisher.sources.image import PlatformNotFound
from publisher.sources.tags import NoMatchingTags
from publisher.state import Cause
from publisher.tree.record import InvalidRecord
from publisher.wishlist.places import NameTaken
from publisher.wishlist.quota import QuotaExceeded
from publisher.workers.errors import WorkerNotStarted

_CAUSES: tuple[tuple[Cause, tuple[type[Exception], ...]], ...] = (
    (Cause.NO_SPACE, (OutOfSpace, NoTemporarySpace)),
    (Cause.HOST, (WorkerNotStarted, SandboxError)),
    (Cause.IMAGE_MISSING, (ImageNotFound, PlatformNotFound, NoMatchingTags)),
    (Cause.REFUSED, (AuthenticationFailed,)),
    (Cause.RATE_LIMITED, (RateLimited,)),
    (Cause.UNREACHABLE, (SourceError,)),
    (Cause.POLICY, (PolicyViolated, OutsidePrefix, RegistryNotPermitted)),
    (Cause.LIMIT, (LimitExceeded,)),
    (Cause.QUOTA, (QuotaExceeded,)),
    (Cause.INVALID_IMAGE, (InvalidManifest, DigestMismatch, LayerError)),
    (Cause.CONTRADICTION, (NameTaken,)),
    (Cause.WISH_LIST, (NotLocked, InvalidReference, InvalidPattern, InvalidFile)),
    (Cause.REPOSITORY, (RepositoryError, InvalidRecord, PathTaken, SquashfsError, OSError)),
)
"""The first row with a base of the exception applies."""


def cause_of(error: Exception) -> Cause:
    """Return why an image failed with `error`."""
    if isinstance(error, OSError) and DiskFull.is_meant_by(error):
        return Cause.NO_SPACE
    if is_process_limit(error):
        return Cause.HOST
    if isinstance(error, ContentRefused):
        causes = {0: Cause.CONTENT_REFUSED, errno.ENOSPC: Cause.NO_SPACE}
        return causes.get(error.shared_cause, Cause.REPOSITORY)
    return next((cause for cause, kinds in _CAUSES if isinstance(error, kinds)), Cause.OTHER)
