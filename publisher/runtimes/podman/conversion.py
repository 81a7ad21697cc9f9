"""Converting a store: from the format of an earlier release, or to another mount of the clients."""

from __future__ import annotations

from publisher.lazy import pattern
from publisher.oci.config import parse_config
from publisher.oci.document import Document
from publisher.oci.manifest import parse_published_manifest
from publisher.repository import Repository, Transaction
from publisher.repository.settings import client_mount
from publisher.runtimes.podman import format as podman
from publisher.runtimes.podman import lists
from publisher.runtimes.podman.format import StoreImage
from publisher.runtimes.podman.layers import headers, tree_layers
from publisher.runtimes.podman.lists import ListEntry
from publisher.tree import podman_store
from publisher.tree.podman_store import PodmanStore
from publisher.tree.record import InvalidRecord

_TREE = pattern(r"(?:^|/)(\.(?:layers|flat)/[0-9a-f]{2}/[0-9a-f]+(?:/layerfs)?)$")


def outdated(repository: Repository) -> str:
    """Return why the store has to be converted; "" if it is current, or if there is no store.

    Raises:
        InvalidRecord: The record of the store, or the repository's settings, are unreadable.
    """
    data = repository.read(podman_store.PATH)
    if data is None:
        is_stored = repository.exists(podman.LAYERS_FILE)
        return "it has the format of an earlier release" if is_stored else ""
    found, mount = PodmanStore.parse(data).mount, client_mount(repository)
    return f"its links lead to {found}, and clients mount {mount}" if found != mount else ""


def convert(
    repository: Repository,
    transaction: Transaction,
    mount: str,
    prepared: set[str],
) -> tuple[bytes, bytes]:
    """Convert the store in `transaction`, and return its lists of layers and of images.

    Layers under earlier IDs stay until the next collection, since containers that exist refer to
    them. Only under the writer lock.

    Args:
        repository: The repository.
        transaction: Receives all changes but those of the lists.
        mount: The absolute path at which clients mount the repository.
        prepared: The directories that `transaction` adds already.

    Raises:
        InvalidRecord: A list, or the metadata of an image in the store, is damaged.
        RepositoryChanged: A layer of an image in the store is missing.
        LayerError: A layer's index is damaged.
    """
    layers = repository.read(podman.LAYERS_FILE) or b""
    entries = repository.read(podman.IMAGES_FILE) or b""
    for entry in lists.parse_list(layers, podman.LAYERS_FILE):
        _convert_layer(repository, transaction, entry.id, mount)
    for entry in lists.parse_list(entries, podman.IMAGES_FILE):
        if not entry.layer or ".flat/" in _diff(repository, entry.layer):
            continue
        image = _image(repository, entry)
        for path, content in image.trees(mount):
            if path not in prepared and not repository.exists(path):
                prepared.add(path)
                transaction.link(path, content, [])
        for path, text in image.links():
            if repository.link_text(path) != text:
                transaction.symlink(path, text)
        layers = lists.add_layers(layers, image)
        entries = lists.set_layer(entries, entry.id, image.layers[-1].id)
    return layers, entries


def _convert_layer(
    repository: Repository, transaction: Transaction, layer_id: str, mount: str
) -> None:
    """Let the layer's link begin with `mount`; add the base, and the link to tar-split data."""
    found = _TREE.search(_diff(repository, layer_id))
    if found is not None:
        path = f"{podman.layer_paths(layer_id)[0]}/diff"
        wanted = f"{mount}/{found[1]}"
        if repository.link_text(path) != wanted:
            transaction.symlink(path, wanted)
        lower = f"{podman.layer_paths(layer_id)[0]}/lower"
        before = (repository.read(lower) or b"").decode()
        if podman.with_base(before) != before:
            transaction.replace(lower, podman.with_base(before).encode())
        split = podman.tar_split_of(found[1])
        link, text = podman.tar_split_link(layer_id), podman.tar_split_target(split)
        if repository.exists(split) and repository.link_text(link) != text:
            transaction.symlink(link, text)


def _diff(repository: Repository, layer_id: str) -> str:
    return repository.link_text(f"{podman.layer_paths(layer_id)[0]}/diff") or ""


def _image(repository: Repository, entry: ListEntry) -> StoreImage:
    """Return the image as it has to be in the store, from what the store has of it."""
    documents: dict[str, bytes] = {}
    for key, path in zip(entry.data_names, entry.data_files(), strict=True):
        data = repository.read(path)
        if data is None:
            raise InvalidRecord(path, why="it is missing", hint=lists.REBUILD)
        documents[key] = data
    config_key = next((key for key in documents if podman.entry_id(key) == entry.id), "")
    if "manifest" not in documents or not config_key:
        why = f"image {entry.id} has no manifest, or no config"
        raise InvalidRecord(podman.IMAGES_FILE, why=why, hint=lists.REBUILD)
    manifest = parse_published_manifest(documents["manifest"])
    config = parse_config(documents[config_key], manifest.image_id)
    return StoreImage(
        "",
        Document(documents["manifest"], manifest.media_type, str(entry.value.get("digest", ""))),
        Document(documents[config_key], manifest.config.media_type, manifest.image_id),
        config.created or podman.EPOCH,
        tuple(tree_layers(repository, manifest, config, headers(repository, manifest))),
    )
