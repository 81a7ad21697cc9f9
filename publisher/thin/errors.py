"""What can go wrong with a thin image."""

from __future__ import annotations

from publisher.errors import PublisherError


class ThinImageError(PublisherError):
    """A thin image could not be built, saved or pushed. What is published is not concerned."""
