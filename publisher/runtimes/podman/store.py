"""Podman's additional image store, changed by the transactions that publish and remove images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from publisher.layers.index import IndexHeader, LayerIndex
from publisher.oci.image import PlatformImage
from publisher.oci.manifest import distinct_from_top
from publisher.oci.reference import parse_reference
from publisher.repository import Repository, Transaction
from publisher.runtimes.podman import format as podman
from publisher.runtimes.podman import lists
from publisher.runtimes.podman.format import StoreImage, StoreLayer
from publisher.tree import layout
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
    """Return whether a published image is in the store, if it should be."""
    if "podman" not in publication.outputs or _is_second_place(publication.name):
        return True
    return repository.exists(podman.image_directory(publication.image_id))


def _is_second_place(name: str) -> bool:
    """Return whether `name` is the second place of an image of several platforms."""
    return layout.split_platform(name)[0] != ""


def _describe(repository: Repository, image: PlatformImage, publication: Publication) -> StoreImage:
    headers = _headers(repository, [layer.digest for layer in image.manifest.layers])
    if "flat" in publication.outputs and "layers" not in publication.outputs:
        size = sum(header.content_size for header in headers)
        tree = layout.flat_image(image.manifest.image_id)
        layers = [podman.flat_layer(image.manifest.image_id, tree, size)]
    else:
        layers = _layers(image, headers)
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
    for image in images:
        for path, entries in image.trees():
            if not repository.exists(path):
                transaction.link(path, entries, [])
                staged.add(path)
    return staged


def missing(repository: Repository, images: Sequence[StoreImage]) -> set[str]:
    """Return the directories that the store lacks; a collection may have removed them since."""
    return {path for image in images for path, _ in image.trees() if not repository.exists(path)}


def update(
    repository: Repository,
    transaction: Transaction,
    images: Sequence[StoreImage],
    leaving: Sequence[str] = (),
) -> bool:
    """Add the images to the store's lists, and remove the names `leaving`. Only under the lock.

    Return False if nothing changes.
    """
    for path in podman.LOCK_FILES:
        if images and not repository.exists(path):
            transaction.replace(path, b"")
    for image in images:
        for path, text in image.links():
            if repository.link_text(path) != text:
                transaction.symlink(path, text)
    layers_before, images_before = (
        repository.read(path) for path in (podman.LAYERS_FILE, podman.IMAGES_FILE)
    )
    layers, entries = layers_before, images_before
    for name in leaving:
        entries = lists.remove_name(entries, name)
    for image in images:
        layers = lists.add_layers(layers, image)
        entries = lists.add_image(entries, image)
    changed = False
    for path, before, after in (
        (podman.LAYERS_FILE, layers_before, layers),
        (podman.IMAGES_FILE, images_before, entries),
    ):
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


def _headers(repository: Repository, digests: Sequence[str]) -> list[IndexHeader]:
    return [LayerIndex(partial(repository.open_index, digest)).header for digest in digests]


def _layers(image: PlatformImage, headers: Sequence[IndexHeader]) -> list[StoreLayer]:
    descriptors = image.manifest.layers
    numbers = distinct_from_top([descriptor.digest for descriptor in descriptors])
    diff_ids = [image.config.diff_ids[number] for number in numbers]
    layers: list[StoreLayer] = []
    for number, chain_id in zip(numbers, podman.chain_ids(diff_ids), strict=True):
        descriptor = descriptors[number]
        layers.append(
            StoreLayer(
                chain_id,
                layers[-1].id if layers else "",
                layout.layer_tree(descriptor.digest),
                image.config.diff_ids[number],
                headers[number].archive_size,
                descriptor.digest,
                descriptor.size,
            )
        )
    return layers
