"""The errors of repositories."""

from __future__ import annotations

import errno

from publisher.errors import PublisherError


class RepositoryError(PublisherError):
    """The repository cannot be read or changed; the run cannot continue."""


class RepositoryBusy(RepositoryError):
    """Another process changed the repository for longer than the time to wait."""


class NothingPublished(RepositoryError):
    """The repository is new, or not mounted: there are no records that could be read."""


class RepositoryChanged(RepositoryError):
    """Content that a transaction depends on was removed concurrently: prepare it again."""


class DiskFull(OSError):
    """A file system had no space (ENOSPC) or a quota was used up (EDQUOT).

    `free_bytes` and `free_inodes` are what was free at that moment, before any clean-up;
    `free_inodes` is None where the file system has no fixed number of inodes.
    """

    def __init__(self, error: OSError, free_bytes: int, free_inodes: int | None) -> None:
        super().__init__(error.errno, error.strerror, error.filename)
        self.free_bytes = free_bytes
        self.free_inodes = free_inodes

    @staticmethod
    def is_meant_by(error: OSError) -> bool:
        """Whether `error` reports a full disk, or a quota that is used up."""
        return error.errno in (errno.ENOSPC, errno.EDQUOT)


class PathTaken(PublisherError):
    """A file or directory that the publisher did not make is at the path of an image."""


class DeviceRefused(PublisherError):
    """An image has a device node that the policy keeps and the kernel refuses to make."""
