"""The published file system: reading it, and the transactions that change it.

protocol.py    `Repository`, `Transaction`: what every backend offers
errors.py      the errors of repositories
reading.py     reading the records of a repository
directory/     the backend for an exported directory
cvmfs/         the backend for CVMFS
"""

from publisher.repository.errors import (
    DeviceRefused,
    DiskFull,
    LayerChanged,
    NothingPublished,
    PathTaken,
    RepositoryBusy,
    RepositoryChanged,
    RepositoryError,
)
from publisher.repository.protocol import Found, LayerStage, Repository, Transaction

__all__ = [
    "DeviceRefused",
    "DiskFull",
    "Found",
    "LayerChanged",
    "LayerStage",
    "NothingPublished",
    "PathTaken",
    "Repository",
    "RepositoryBusy",
    "RepositoryChanged",
    "RepositoryError",
    "Transaction",
]
