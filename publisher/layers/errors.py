"""The errors of layers."""

from __future__ import annotations

from publisher.errors import PublisherError


class LayerError(PublisherError):
    """A layer is malformed, hostile, or of a kind that cannot be unpacked."""


class NoTemporarySpace(LayerError):
    """The disk has no space for the temporary list of a layer's entries; the layer is sound."""


class UnsafeName(LayerError):
    """An entry's name, or the name a hard link gives, cannot be used in a published tree."""


class LimitExceeded(LayerError):
    """A layer or image is larger than policy allows."""
