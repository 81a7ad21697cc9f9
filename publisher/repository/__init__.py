"""Read the published file system, and change it by transactions.

protocol.py    `Repository`, `Transaction`: the interface of every backend
errors.py      the errors of repositories
reading.py     functions that read single records of a repository
directory/     the backend for an exported directory
cvmfs/         the backend for CVMFS
"""

from publisher.repository.errors import (
    ContentRefused,
    DeviceRefused,
    DiskFull,
    LayerChanged,
    LayerDamaged,
    NothingPublished,
    OutOfSpace,
    PathTaken,
    RepositoryBusy,
    RepositoryChanged,
    RepositoryError,
    ends_run,
)
from publisher.repository.protocol import Found, LayerFiles, LayerStage, Repository, Transaction

__all__ = [
    "ContentRefused",
    "DeviceRefused",
    "DiskFull",
    "Found",
    "LayerChanged",
    "LayerDamaged",
    "LayerFiles",
    "LayerStage",
    "NothingPublished",
    "OutOfSpace",
    "PathTaken",
    "Repository",
    "RepositoryBusy",
    "RepositoryChanged",
    "RepositoryError",
    "Transaction",
    "ends_run",
]
