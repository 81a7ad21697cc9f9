"""The errors of repositories."""

from __future__ import annotations

import errno

from publisher.errors import PublisherError, presentable


class RepositoryError(PublisherError):
    """The repository cannot be read or changed; the run cannot continue."""


class RepositoryBusy(RepositoryError):
    """Another process changed the repository for longer than the time to wait.

    `holder` describes the process or transaction in a sentence; "" if it is not known.
    """

    def __init__(self, what: str, *, why: str = "", hint: str = "", holder: str = "") -> None:
        super().__init__(what, why=why, hint=hint)
        self.holder = holder


class NothingPublished(RepositoryError):
    """The repository is new, or not mounted: it has no records."""


class RepositoryChanged(RepositoryError):
    """Another process removed or changed what a transaction depends on.

    The transaction has no effect; the caller prepares it again from the current state.
    """


class LayerChanged(RepositoryChanged):
    """A layer that a transaction depends on was removed, replaced or damaged.

    `layer` is its digest.
    """

    def __init__(self, layer: str, *, why: str) -> None:
        super().__init__(f"cannot use layer {layer}", why=why)
        self.layer = layer


class ContentRefused(RepositoryError):
    """The repository accepts other changes, but not those of one transaction, which has no effect.

    `shared_cause` is why, as an errno, if that may affect the content of other transactions as
    well, as a full disk does; 0 if it does not, or is not known.
    """

    def __init__(self, what: str, *, why: str, hint: str, shared_cause: int = 0) -> None:
        super().__init__(what, why=why, hint=hint)
        self.shared_cause = shared_cause


def ends_run(error: Exception) -> bool:
    """Return whether all other images would fail as well as the one that caused `error`."""
    of_one_image = RepositoryChanged | ContentRefused
    return isinstance(error, RepositoryError) and not isinstance(error, of_one_image)


class LayerDamaged(PublisherError):
    """A published layer lacks a file that its index describes, or has something else there.

    `path` is the path of the file in the layer.
    """

    def __init__(self, path: str, *, why: str) -> None:
        super().__init__(
            f"cannot link {presentable(path)} from a published layer",
            why=f"the layer is damaged: {why}",
            hint="publisher verify --deep --refetch",
        )
        self.path = path


class DiskFull(OSError):
    """A file system had no space (ENOSPC) or a quota was used up (EDQUOT).

    Attributes:
        free_bytes: The free space at that moment, before any clean-up.
        free_inodes: The free inodes; None where the file system has no fixed number of them.
    """

    def __init__(self, error: OSError, free_bytes: int, free_inodes: int | None) -> None:
        super().__init__(error.errno, error.strerror, error.filename)
        self.free_bytes = free_bytes
        self.free_inodes = free_inodes

    @staticmethod
    def is_meant_by(error: OSError) -> bool:
        """Return whether `error` is a full disk, or a quota that is used up."""
        return error.errno in (errno.ENOSPC, errno.EDQUOT)


class OutOfSpace(PublisherError):
    """The disk has no space for an image, at least while other images are published."""


class PathTaken(PublisherError):
    """A file or directory that the publisher did not make is at the path of an image.

    `path` is the path that cannot be published, relative to the repository.
    """

    def __init__(self, what: str, *, path: str, why: str = "", hint: str = "") -> None:
        super().__init__(what, why=why, hint=hint)
        self.path = path


class DeviceRefused(PublisherError):
    """The policy keeps a device node of an image that the kernel refuses to create."""
