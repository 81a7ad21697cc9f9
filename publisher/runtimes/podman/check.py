"""Check that everything exists that the lists of Podman's additional image store name."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.repository import Repository
from publisher.repository.settings import client_mount
from publisher.runtimes.podman import format as podman
from publisher.runtimes.podman import lists
from publisher.runtimes.podman.conversion import outdated
from publisher.tree import layout, podman_store
from publisher.tree.record import InvalidRecord


def store_faults(repository: Repository) -> Iterator[tuple[str, str]]:
    """Yield (path, message) for each fault of the store.

    Of a store that has to be converted, this is the only fault.

    Raises:
        InvalidRecord: The store's record, or the repository's settings, are unreadable.
    """
    why = outdated(repository)
    if why:
        yield podman_store.PATH, why
        return
    mount = client_mount(repository)
    found: dict[str, list[lists.ListEntry]] = {}
    for path in (podman.LAYERS_FILE, podman.IMAGES_FILE):
        try:
            found[path] = lists.parse_list(repository.read(path), path)
        except InvalidRecord as error:
            yield path, f"the list cannot be read: {error.why}"
            return
    layers = {entry.id for entry in found[podman.LAYERS_FILE]}
    if layers:
        yield from _base_faults(repository)
    for entry in found[podman.LAYERS_FILE]:
        yield from _layer_faults(repository, entry.id, mount)
        if entry.parent and entry.parent not in layers:
            yield podman.LAYERS_FILE, f"the parent {entry.parent} of {entry.id} is not listed"
    for entry in found[podman.IMAGES_FILE]:
        if entry.layer and entry.layer not in layers:
            yield podman.IMAGES_FILE, f"the layer of image {entry.id} is not listed"
        for path in entry.data_files():
            if not repository.exists(path):
                yield path, "a data file of an image is missing"


def without_tar_split(repository: Repository) -> tuple[int, list[str]]:
    """Return how many layers have no tar-split data, and the IDs of the images that have them.

    Flat images, which no archive belongs to, are not counted. Call this for a store without faults.

    Raises:
        InvalidRecord: A list is damaged.
    """
    layers = lists.parse_list(repository.read(podman.LAYERS_FILE), podman.LAYERS_FILE)
    images = lists.parse_list(repository.read(podman.IMAGES_FILE), podman.IMAGES_FILE)
    parents = {entry.id: entry.parent for entry in layers}
    lacking = {entry.id for entry in layers if _lacks_tar_split(repository, entry.id)}

    def is_affected(layer: str) -> bool:
        while layer and layer not in lacking:
            layer = parents.get(layer, "")
        return bool(layer)

    return len(lacking), [entry.id for entry in images if is_affected(entry.layer)]


def _lacks_tar_split(repository: Repository, layer_id: str) -> bool:
    if repository.exists(podman.tar_split_link(layer_id)):
        return False
    diff = repository.link_text(f"{podman.layer_paths(layer_id)[0]}/diff") or ""
    return f"/{layout.LAYERS}/" in diff


def _base_faults(repository: Repository) -> Iterator[tuple[str, str]]:
    path, text = podman.base_link()
    if not repository.exists(podman.BASE):
        yield podman.BASE, "what all layers lie on is missing"
    if repository.link_text(path) != text:
        yield path, "it does not lead to what all layers lie on"


def _layer_faults(repository: Repository, layer_id: str, mount: str) -> Iterator[tuple[str, str]]:
    directory, short = podman.layer_paths(layer_id)
    target = repository.link_text(f"{directory}/diff") or ""
    tree = target.removeprefix(f"{mount}/")
    if tree in ("", target) or not repository.exists(tree):
        yield f"{directory}/diff", f"it leads to {target or 'nothing'}, which does not exist"
    split = podman.tar_split_of(tree)
    found = repository.link_text(podman.tar_split_link(layer_id))
    if found != (podman.tar_split_target(split) if repository.exists(split) else None):
        yield podman.tar_split_link(layer_id), "it does not lead to the layer's tar-split data"
    if repository.link_text(short) != f"../{layer_id}/diff":
        yield short, f"it does not lead to layer {layer_id}"
    if not repository.exists(f"{directory}/link"):
        yield f"{directory}/link", "the layer's short name is missing"
