"""Sources of images: one module per transport, all with the interface `Source`."""

from publisher.sources.errors import AuthenticationFailed, ImageNotFound, SourceError
from publisher.sources.protocol import Source

__all__ = ["AuthenticationFailed", "ImageNotFound", "Source", "SourceError"]
