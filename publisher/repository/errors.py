"""What can go wrong with a repository."""

from __future__ import annotations

from publisher.errors import PublisherError


class RepositoryError(PublisherError):
    """The repository cannot be used as asked; the run cannot go on."""


class RepositoryBusy(RepositoryError):
    """Another process changes the repository, and did so for longer than we were told to wait."""


class RepositoryChanged(RepositoryError):
    """Content that a transaction counted on went away while it was prepared: prepare it again."""


class PathTaken(PublisherError):
    """Something that the publisher did not make stands where an image should be published."""


class DeviceRefused(PublisherError):
    """An image has a device node that the policy keeps, but the kernel would not make."""
