"""What can go wrong with a source."""

from __future__ import annotations

from publisher.errors import PublisherError


class SourceError(PublisherError):
    """A source did not give what was asked of it: unreachable, refused, or broken."""


class ImageNotFound(SourceError):
    """A working source says that there is no such image, tag or blob. Only this means "gone"."""


class AuthenticationFailed(SourceError):
    """The source wants credentials, or refuses the ones we have."""
