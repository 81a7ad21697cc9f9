"""The error of this room."""

from __future__ import annotations

from publisher.errors import PublisherError


class SandboxError(PublisherError):
    """A process cannot be confined as its caller requests."""
