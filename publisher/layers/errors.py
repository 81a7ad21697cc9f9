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
    """A layer or image is larger than a limit allows.

    `limit` is the name of the limit, that of a field of `Limits` where there is one; `allowed` is
    its value, and `found` the value that exceeds it, None where reading ended at the limit. Sizes
    are in bytes.
    """

    def __init__(
        self, what: str, *, limit: str, allowed: int, found: int | None = None, why: str
    ) -> None:
        super().__init__(what, why=why)
        self.limit = limit
        self.allowed = allowed
        self.found = found
