"""Podman's additional image store, changed by the transactions that publish and remove images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from publisher.oci.image import PlatformImage
from publisher.oci.reference import parse_reference
from publisher.repository import Repository, Transaction
from publisher.repository.settings import client_mount
from publisher.runtimes.podman import format as podman
from publisher.runtimes.podman import lists
from publisher.runtimes.podman.conversion import convert, outdated
from publisher.runtimes.podman.format import StoreImage
from publisher.runtimes.podman.layers import headers, tree_layers
from publisher.tree import layout, podman_store
from publisher.tree.podman_store import PodmanStore
from publisher.tree.publication import Publication


def describe(
    repository: Repository, images: Sequence[tuple[PlatformImage, Publication]]
) -> list[StoreImage]:
    """Return the store's images for those of `images` with the output podman.

    Their layers must be published or staged. The store's layers are the layer trees, or for an
    image with the output flat and without layers, the flat image as the only layer.
    """
    return [
        _describe(repository, image, publication)
        for image, publication in images
        if "podman" in publication.outputs and not _is_second_place(publication.name)
    ]


def leaving(before: Publication | None, publication: Publication) -> list[str]:
    """Return the store's name of an image that loses the output podman, which it had `before`."""
    if before is None or _is_second_place(publication.name):
        return []
    if "podman" in before.outputs and "podman" not in publication.outputs:
        return [podman.store_name(parse_reference(before.reference), before.name)]
    return []


def is_stored(repository: Repository, publication: Publication) -> bool:
    """Return whether a published image is in the store, in the current format, if it should be.

    Raises:
        InvalidRecord: The record of the store, or the repository's settings, are unreadable.
    """
    if "podman" not in publication.outputs or _is_second_place(publication.name):
        return True
    is_present = repository.exists(podman.image_directory(publication.image_id))
    return is_present and not outdated(repository)


def _is_second_place(name: str) -> bool:
    """Return whether `name` is the second place of an image of several platforms."""
    return layout.split_platform(name)[0] != ""


def _describe(repository: Repository, image: PlatformImage, publication: Publication) -> StoreImage:
    found = headers(repository, image.manifest)
    if "flat" in publication.outputs and "layers" not in publication.outputs:
        size = sum(header.content_size for header in found)
        tree = layout.flat_image(image.manifest.image_id)
        layers = [podman.flat_layer(image.manifest.image_id, tree, size)]
    else:
        layers = tree_layers(repository, image.manifest, image.config, found)
    return StoreImage(
        podman.store_name(parse_reference(publication.reference), publication.name),
        image.document,
        image.config_document,
        image.config.created or podman.EPOCH,
        tuple(layers),
    )


def prepare(
    repository: Repository, transaction: Transaction, images: Sequence[StoreImage]
) -> set[str]:
    """Stage and return the directories of images that the store lacks; needs no lock."""
    staged: set[str] = set()
    mount = client_mount(repository) if images else ""
    for image in images:
        for path, entries in image.trees(mount):
            if path not in staged and not repository.exists(path):
                transaction.link(path, entries, [])
                staged.add(path)
    return staged


def missing(repository: Repository, images: Sequence[StoreImage]) -> set[str]:
    """Return the directories that the store lacks; a collection may have removed them since."""
    return {path for image in images for path, _ in image.trees("") if not repository.exists(path)}


def update(
    repository: Repository,
    transaction: Transaction,
    images: Sequence[StoreImage],
    leaving: Sequence[str] = (),
    prepared: Iterable[str] = (),
) -> bool:
    """Add the images to the store's lists, and remove the names `leaving`. Only under the lock.

    A store in the format of an earlier release, or for another mount, is converted.

    Args:
        repository: The repository.
        transaction: Receives the changes.
        images: The images, whose directories exist or are `prepared`.
        leaving: The names that no image of the store has afterwards.
        prepared: What `prepare` returned.

    Returns:
        Whether anything changes.

    Raises:
        PublisherError: The store is damaged, or its settings are unreadable.
    """
    if not images and not leaving:
        return False
    for path in podman.LOCK_FILES:
        if images and not repository.exists(path):
            transaction.replace(path, b"")
    layers_before, images_before = (
        repository.read(path) for path in (podman.LAYERS_FILE, podman.IMAGES_FILE)
    )
    layers, entries = layers_before, images_before
    mount = client_mount(repository)
    if outdated(repository):
        layers, entries = convert(repository, transaction, mount, set(prepared))
    record = PodmanStore(mount).to_bytes()
    if (images or layers is not None) and repository.read(podman_store.PATH) != record:
        transaction.replace(podman_store.PATH, record)
    for image in images:
        for path, text in image.links():
            if repository.link_text(path) != text:
                transaction.symlink(path, text)
    for name in leaving:
        entries = lists.remove_name(entries, name)
    for image in images:
        layers = lists.add_layers(layers, image)
        entries = lists.add_image(entries, image)
    return _replace_lists(transaction, (layers_before, layers), (images_before, entries))


def convert_store(repository: Repository) -> bool:
    """Convert the store in a transaction of its own; return False if it is current.

    Raises:
        PublisherError: The store is damaged.
    """
    if not outdated(repository):
        return False
    with repository.transaction("converting the podman store") as transaction:
        with transaction.exclusive():
            why = outdated(repository)
            if not why:
                return False
            mount = client_mount(repository)
            layers, images = convert(repository, transaction, mount, set())
            transaction.replace(podman_store.PATH, PodmanStore(mount).to_bytes())
            _replace_lists(transaction, (None, layers), (None, images))
            transaction.record(layout.PODMAN_STORE, "converted", why)
            transaction.commit()
    return True


def _replace_lists(
    transaction: Transaction,
    layers: tuple[bytes | None, bytes | None],
    images: tuple[bytes | None, bytes | None],
) -> bool:
    """Replace the lists, of which each is given before and after; return whether one differs."""
    changed = False
    for path, (before, after) in ((podman.LAYERS_FILE, layers), (podman.IMAGES_FILE, images)):
        if after is not None and after != before:
            # Last of all: podman expects that everything listed exists.
            transaction.replace(path, after, last=True)
            changed = True
    return changed


def move_name(repository: Repository, transaction: Transaction, publication: Publication) -> None:
    """Move the name of `publication` to its image, if that is in the store. Only under the lock.

    The image that had the name loses it in any case.
    """
    before = repository.read(podman.IMAGES_FILE)
    if before is None or _is_second_place(publication.name):
        return
    name = podman.store_name(parse_reference(publication.reference), publication.name)
    if "podman" in publication.outputs:
        after: bytes | None = lists.give_name(before, publication.image_id, name)
    else:
        after = lists.remove_name(before, name)
    if after is not None and after != before:
        transaction.replace(podman.IMAGES_FILE, after, last=True)


def forget(
    repository: Repository,
    transaction: Transaction,
    publications: Mapping[str, Publication | None],
    image_ids: Iterable[str],
) -> None:
    """Remove what is being deleted from the store: published names, and unused images.

    `publications` are the records of the names that go. Only under the writer lock.
    """
    images, layers = (repository.read(path) for path in (podman.IMAGES_FILE, podman.LAYERS_FILE))
    if images is None or layers is None:
        return
    removal = lists.remove_images(images, layers, list(image_ids))
    entries: bytes | None = removal.images
    for name, found in publications.items():
        if found is not None and not _is_second_place(name):
            stored = podman.store_name(parse_reference(found.reference), name)
            entries = lists.remove_name(entries, stored)
    for path, before, after in (
        (podman.IMAGES_FILE, images, entries),
        (podman.LAYERS_FILE, layers, removal.layers),
    ):
        if after is not None and after != before:
            transaction.replace(path, after)
    for path in removal.paths:
        transaction.remove(path)
