"""The values of a snapshotter: snapshots, mounts, and the errors that its callers distinguish."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import field

from publisher.errors import PublisherError
from publisher.lazy import dataclass


class Kind(enum.IntEnum):
    """The kind of a snapshot; the values are those of the wire format."""

    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot.

    Attributes:
        id: The number of its directory, never used again.
        name: The name that containerd knows it by; changed by a commit.
        parent: The name of its parent; "" for none.
        created: Nanoseconds since 1970.
        updated: Nanoseconds since 1970.
        layer: The absolute path of the tree's layer that it shows; "" if its files are its own.
        size: Bytes of its own files; 0 for one that is not committed.
        inodes: The number of its own files.
    """

    id: int
    name: str
    parent: str
    kind: Kind
    created: int
    updated: int
    labels: Mapping[str, str] = field(default_factory=dict)
    layer: str = ""
    size: int = 0
    inodes: int = 0


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount, in the form that containerd passes to the kernel."""

    type: str
    source: str
    options: tuple[str, ...]


class SnapshotError(PublisherError):
    """A request that cannot be executed in the present state."""


class NotFound(SnapshotError):
    """No snapshot has the name."""


class AlreadyExists(SnapshotError):
    """A snapshot has the name already."""


class FailedPrecondition(SnapshotError):
    """The snapshot is of the wrong kind, or has children, or its layer is missing."""


class InvalidArgument(SnapshotError):
    """The request is malformed."""
