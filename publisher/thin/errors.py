"""The error of this package."""

from __future__ import annotations

from publisher.errors import PublisherError


class ThinImageError(PublisherError):
    """A thin image cannot be built, saved or pushed. Published files are not affected."""
