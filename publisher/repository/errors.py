"""The errors of repositories."""

from __future__ import annotations

from publisher.errors import PublisherError


class RepositoryError(PublisherError):
    """The repository cannot be read or changed; the run cannot continue."""


class RepositoryBusy(RepositoryError):
    """Another process changed the repository for longer than the time to wait."""


class RepositoryChanged(RepositoryError):
    """Content that a transaction depends on was removed concurrently: prepare it again."""


class PathTaken(PublisherError):
    """A file or directory that the publisher did not make is at the path of an image."""


class DeviceRefused(PublisherError):
    """An image has a device node that the policy keeps and the kernel refuses to make."""
