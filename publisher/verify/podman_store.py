"""Podman's additional image store: what its lists name must be there, and lead somewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from publisher.repository import Repository
from publisher.runtimes.podman import format as podman
from publisher.tree import layout
from publisher.verify.findings import Kind, Severity
from publisher.verify.inventory import Inventory

_REBUILD = f"remove {layout.PODMAN_STORE}; the next ingest builds it again from what is published"


def check_podman_store(repository: Repository, inventory: Inventory) -> None:
    """Add to the inventory what is wrong with the store, if there is one."""
    if not repository.exists(layout.PODMAN_STORE):
        return
    for path, what in _faults(repository):
        inventory.add(Severity.ERROR, Kind.PODMAN_STORE, path, what, how=_REBUILD)


def _faults(repository: Repository) -> Iterator[tuple[str, str]]:
    lists: dict[str, list[dict[str, Any]]] = {}
    for path in (podman.LAYERS_FILE, podman.IMAGES_FILE):
        try:
            lists[path] = podman.parse_list(repository.read(path) or b"")
        except ValueError as error:
            yield path, f"the list cannot be read: {error}"
            return
    layers = {str(entry["id"]): entry for entry in lists[podman.LAYERS_FILE]}
    for entry in layers.values():
        yield from _layer_faults(repository, str(entry["id"]))
        parent = entry.get("parent")
        if parent and parent not in layers:
            yield podman.LAYERS_FILE, f"layer {entry['id']} lies on {parent}, which is not listed"
    for entry in lists[podman.IMAGES_FILE]:
        if entry.get("layer") not in layers:
            yield podman.IMAGES_FILE, f"the layer of image {entry['id']} is not listed"
        for path in podman.image_files(entry):
            if not repository.exists(path):
                yield path, "this part of an image is not there"


def _layer_faults(repository: Repository, layer_id: str) -> Iterator[tuple[str, str]]:
    directory, short = podman.layer_paths(layer_id)
    target = repository.link_text(f"{directory}/diff")
    tree = (target or "").removeprefix("../../../")
    if target is None or not repository.exists(tree):
        yield f"{directory}/diff", f"it leads to {target or 'nothing'}, where nothing is"
    if repository.link_text(short) != f"../{layer_id}/diff":
        yield short, f"it does not lead to layer {layer_id}"
    if not repository.exists(f"{directory}/link"):
        yield f"{directory}/link", "the layer's short name is not there"
