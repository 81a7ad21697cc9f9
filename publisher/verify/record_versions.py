"""Findings about records in a later version of their format, which are not changed."""

from __future__ import annotations

import json
import shlex

from publisher.repository import Repository
from publisher.tree.record import InvalidRecord
from publisher.verify.findings import Kind
from publisher.verify.inventory import Inventory


def is_newer(data: bytes, known: int) -> bool:
    """Return whether a record has a later version of its format than `known`."""
    try:
        version = json.loads(data)["version"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return False
    return isinstance(version, int) and not isinstance(version, bool) and version > known


def add_newer_version(
    repository: Repository,
    inventory: Inventory,
    path: str,
    error: InvalidRecord,
    *,
    image: str = "",
) -> None:
    """Add the finding for a record that a newer release wrote."""
    inventory.warning(
        Kind.FUTURE_VERSION,
        path,
        f"{error.why}; it is kept for the release of publisher that wrote it",
        how=f"truncate -s 0 {shlex.quote(path_on_disk(repository, path))} "
        "&& publisher verify --repair, if there is no such release",
        image=image,
    )


def path_on_disk(repository: Repository, path: str) -> str:
    """Return the path of a file of the tree on this machine, as administrators see it."""
    if repository.url.kind == "cvmfs":
        return f"/cvmfs/{repository.url.location}/{path}"
    return f"{repository.url.location}/{path}"
