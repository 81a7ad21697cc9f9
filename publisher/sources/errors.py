"""Errors of sources."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.errors import PublisherError


class SourceError(PublisherError):
    """A source cannot be read: it is unreachable, refuses access, or is malformed."""


class ImageNotFound(SourceError):
    """A working source does not have the image, tag or blob.

    No other error means that it is absent. `nearest` are the tags or names in the source that are
    most similar to the requested one.
    """

    def __init__(
        self, what: str, *, why: str = "", hint: str = "", nearest: Sequence[str] = ()
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.nearest = tuple(nearest)


class RegistryNotPermitted(SourceError):
    """The settings do not permit requests to the registry of an image."""


class RateLimited(SourceError):
    """A host received too many requests (status 429), also after the waits that it requested."""


class AuthenticationFailed(SourceError):
    """The source requires a credential, or refuses the one that was sent.

    `registry` is the registry's "host[:port]"; "" if a credentials file or a helper failed.
    """

    def __init__(self, what: str, *, why: str = "", hint: str = "", registry: str = "") -> None:
        super().__init__(what, why=why, hint=hint)
        self.registry = registry
