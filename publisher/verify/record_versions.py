"""Findings about records in a later version of their format, and their replacement."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from publisher.repository import Repository
from publisher.repository.damaged import read_damaged
from publisher.tree import layout
from publisher.tree.record import InvalidRecord
from publisher.verify.findings import Finding, Kind
from publisher.verify.inventory import Inventory

REPLACE = "publisher verify --repair --replace-newer, if there is no such release"
"""The hint for what a newer release wrote."""


def is_newer(data: bytes, known: int) -> bool:
    """Return whether a record has a later version of its format than `known`."""
    version = _loaded(data).get("version")
    return isinstance(version, int) and not isinstance(version, bool) and version > known


def add_newer_version(
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
        how=REPLACE,
        image=image,
    )


def release_newer(repository: Repository, findings: Iterable[Finding]) -> bool:
    """Make records of a newer release damaged ones, which a repair rebuilds as far as it can.

    Their version is removed. What else is in them is kept, for the repair to read; the index of a
    layer, of which nothing can be read, is removed.

    Args:
        repository: Opened for writing.
        findings: Those of a verification; only FUTURE_VERSION is treated.

    Returns:
        Whether anything was changed.
    """
    newer = [finding for finding in findings if finding.kind is Kind.FUTURE_VERSION]
    if not newer:
        return False
    with repository.transaction("release of newer records") as transaction:
        with transaction.exclusive():
            for finding in newer:
                data = read_damaged(repository, finding.path)
                if data is None:
                    continue
                if finding.path.endswith(f"/{layout.LAYER_INDEX}"):
                    transaction.remove(finding.path)
                elif "version" in (value := _loaded(data)):
                    del value["version"]
                    transaction.replace(finding.path, json.dumps(value).encode())
                transaction.record(finding.image or finding.path, "released", finding.what)
            transaction.commit()
    return True


def _loaded(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
