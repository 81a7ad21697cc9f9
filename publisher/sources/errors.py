"""Errors of sources."""

from __future__ import annotations

from publisher.errors import PublisherError


class SourceError(PublisherError):
    """A source did not deliver what was requested: it is unreachable, refuses, or is broken."""


class ImageNotFound(SourceError):
    """A working source has no such image, tag or blob. Only this error means that it is absent."""


class AuthenticationFailed(SourceError):
    """The source requires a credential, or refuses the one that it got."""
