"""Errors of sources."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.errors import PublisherError


class SourceError(PublisherError):
    """A source did not deliver what was requested: it is unreachable, refuses, or is broken."""


class ImageNotFound(SourceError):
    """A working source has no such image, tag or blob. Only this error means that it is absent.

    `nearest` are the tags or names in the source that resemble the requested one most.
    """

    def __init__(
        self, what: str, *, why: str = "", hint: str = "", nearest: Sequence[str] = ()
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.nearest = tuple(nearest)


class AuthenticationFailed(SourceError):
    """The source requires a credential, or refuses the one that it got.

    `registry` is the registry's "host[:port]"; "" if a credentials file or a helper failed.
    """

    def __init__(self, what: str, *, why: str = "", hint: str = "", registry: str = "") -> None:
        super().__init__(what, why=why, hint=hint)
        self.registry = registry
