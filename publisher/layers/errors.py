"""The errors of layers."""

from __future__ import annotations

from publisher.errors import PublisherError


class LayerError(PublisherError):
    """A layer is malformed, or has entries that cannot be unpacked safely."""


TEMPORARY_SPACE = (
    "free space for temporary files: beside the layer in the repository or spool, or "
    "with --workers 0 in SQLITE_TMPDIR, TMPDIR or /var/tmp"
)
"""What to do if a layer's temporary files cannot be written."""


class NoTemporarySpace(LayerError):
    """The disk has no space for the temporary list of a layer's entries. The layer is valid."""


class UnsafeName(LayerError):
    """The name of an entry, or the target of a hard link, cannot be used in a published tree."""


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
