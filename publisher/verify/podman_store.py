"""Podman's additional image store: what its lists name has to exist."""

from __future__ import annotations

from publisher.repository import Repository
from publisher.runtimes.podman import lists
from publisher.runtimes.podman.check import store_faults
from publisher.tree import layout
from publisher.verify.findings import Kind
from publisher.verify.inventory import Inventory


def check_podman_store(repository: Repository, inventory: Inventory) -> None:
    """Add to the inventory what is wrong with the store, if there is one."""
    if not repository.exists(layout.PODMAN_STORE):
        return
    for path, what in store_faults(repository):
        inventory.error(Kind.PODMAN_STORE, path, what, how=lists.REBUILD)
