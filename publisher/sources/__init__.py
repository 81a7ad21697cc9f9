"""Where images come from: one module per transport, all with the same few methods."""

from publisher.sources.errors import AuthenticationFailed, ImageNotFound, SourceError
from publisher.sources.protocol import Source

__all__ = ["AuthenticationFailed", "ImageNotFound", "Source", "SourceError"]
