"""Publish one requested image for all its platforms: prepare its content, then commit it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial

from publisher.entry import Fixup
from publisher.ingest.commit import NewLayer, PreparedImage
from publisher.ingest.group import Commits
from publisher.ingest.report import Status
from publisher.ingest.wanted import Item, has_content
from publisher.layers.fixups import image_fixups
from publisher.layers.index import IndexHeader, LayerIndex
from publisher.layers.index_lines import decode_to_link
from publisher.layers.policy import Limits
from publisher.oci.image import PlatformImage
from publisher.repository import Repository, Transaction
from publisher.runtimes.flat_image import check_layers, flat_plan
from publisher.runtimes.podman import store as podman_store
from publisher.tree import layout


def publish(
    repository: Repository,
    items: Sequence[Item],
    now: Callable[[], datetime],
    purpose: str,
    refused: Callable[[str], None] = lambda _: None,
    limits: Limits | None = None,
    commits: Commits | None = None,
    bills: Mapping[str, bytes] | None = None,
) -> Status:
    """Publish all `items`, whose layers are published or staged, in one transaction.

    Args:
        repository: The repository, opened for writing.
        items: One image, for all its platforms and names.
        now: The clock.
        purpose: What the transaction is for, for other publishers and the history.
        refused: Called with the kind of each thing that the file system cannot store.
        limits: How much an image may hold; by default the usual limits.
        commits: The commits of the run, which may publish other images together with this one; by
            default the image is committed by itself.
        bills: New bills of materials, by their paths.

    Returns:
        Whether the image is new, a tag moved, or only records changed.

    Raises:
        RepositoryChanged: A layer was removed after it was staged or found.
        ConcurrentlyPublished: Another run published something else under one of the names.
        DigestMismatch: A layer's archive is not the one that the image's config names.
        InvalidManifest: A layer does not fit the image's config.
        LimitExceeded: The image's unpacked layers are more than an image may hold.
        ImagePinned: A tag that is pinned would move.
    """
    for item in items:
        image = item.image
        check_layers(repository, image.manifest.layers, image.config, image.document.digest)
        _check_unpacked_size(repository, item, limits or Limits())
    with repository.transaction(purpose) as transaction:
        images = _new_flat_images(repository, items)
        for image in images:
            for kind in _link_flat_image(repository, transaction, image):
                refused(kind)
        layers = _new_layers(repository, items)
        intended = [item.publication(item.wanted.terms, now()) for item in items]
        images_of = [item.image for item in items]
        stored = podman_store.describe(repository, list(zip(images_of, intended, strict=True)))
        directories = frozenset(podman_store.prepare(repository, transaction, stored))
        prepared = PreparedImage(
            transaction=transaction,
            items=items,
            purpose=purpose,
            now=now,
            images=images,
            layers=layers,
            intended=intended,
            stored=stored,
            directories=directories,
            bills=bills or {},
        )
        return (commits or Commits(repository)).commit(prepared)


def wait_for_others(repository: Repository, purpose: str) -> None:
    """Wait until the commit of another publisher has ended."""
    with repository.transaction(purpose) as nothing, nothing.exclusive():
        pass


def unpacked_entries(repository: Repository, item: Item) -> int:
    """Return how many entries the layers of an image have, which are published or staged."""
    return sum(header.entries for header in _headers(repository, item))


def _headers(repository: Repository, item: Item) -> list[IndexHeader]:
    return [
        LayerIndex(partial(repository.open_index, layer.digest)).header
        for layer in item.image.manifest.layers
    ]


def _check_unpacked_size(repository: Repository, item: Item, limits: Limits) -> None:
    """Raise LimitExceeded if the layers, unpacked, are more than an image may hold."""
    if has_content(repository, item):
        return
    headers = _headers(repository, item)
    limits.check_image(
        f"cannot publish {item.name}",
        sum(header.entries for header in headers),
        sum(header.archive_size for header in headers),
    )


def _new_flat_images(repository: Repository, items: Sequence[Item]) -> list[PlatformImage]:
    images = {
        item.image.manifest.image_id: item.image for item in items if "flat" in item.wanted.outputs
    }
    return [i for d, i in images.items() if not repository.exists(layout.flat_image(d))]


def _link_flat_image(
    repository: Repository, transaction: Transaction, image: PlatformImage
) -> Mapping[str, int]:
    digests = [layer.digest for layer in image.manifest.layers]
    what = image.document.digest
    with flat_plan(repository, digests, image.config, what, decode_to_link) as plan:
        return transaction.link(layout.flat_image(image.manifest.image_id), plan, digests)


def _new_layers(repository: Repository, items: Sequence[Item]) -> list[NewLayer]:
    """Return the layers that are not published yet, with what each needs from those below it.

    This reads indexes, and is therefore done before the writer lock is taken. A layer that another
    run publishes in the meantime is published as that run determined.
    """
    new: dict[str, NewLayer] = {}
    for item in items:
        digests = [layer.digest for layer in item.image.manifest.layers]
        numbers: dict[int, list[Fixup]] = {}
        for digest in dict.fromkeys(digests):
            if digest not in new and not repository.exists(layout.layer_directory(digest)):
                numbers[digests.index(digest)] = []
        indexes = [LayerIndex(partial(repository.open_index, digest)) for digest in digests]
        for number, fixup in image_fixups(indexes, numbers.keys(), repository.keeps_xattrs):
            numbers[number].append(fixup)
        for number, needed in numbers.items():
            new[digests[number]] = NewLayer(digests[number], tuple(needed), digests[:number])
    return list(new.values())
