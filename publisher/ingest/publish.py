"""One transaction that makes one wished image, for all its platforms, visible."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from publisher.entry import Fixup
from publisher.ingest.bookkeeping import record
from publisher.ingest.report import Status
from publisher.ingest.wanted import Item, check_place
from publisher.layers.fixups import image_fixups
from publisher.layers.index import LayerIndex
from publisher.oci.image import PlatformImage
from publisher.repository import Repository, RepositoryChanged, Transaction
from publisher.runtimes.flat_image import check_layers, flat_plan
from publisher.runtimes.podman import store as podman_store
from publisher.tree import layout


@dataclass(frozen=True, slots=True)
class _NewLayer:
    """A layer to be published, and what its tree needs from the layers `below` it."""

    digest: str
    fixups: tuple[Fixup, ...]
    below: Sequence[str]


def publish(
    repository: Repository,
    items: Sequence[Item],
    now: Callable[[], datetime],
    purpose: str,
    refused: Callable[[str], None] = lambda _: None,
) -> Status:
    """Publish all `items` in one transaction, and say whether that was new, a move, or nothing.

    `refused` is told the kinds of things that the filesystem would not store as they should be.

    Their layers must have been staged. Raises RepositoryChanged when one was collected meanwhile
    (PublishedMeanwhile when another run published something else under one of their names),
    DigestMismatch or InvalidManifest when one is not what the image's config and manifest say, and
    ImagePinned when a tag that is pinned would move.
    """
    for item in items:
        image = item.image
        check_layers(repository, image.manifest.layers, image.config, image.document.digest)
    with repository.transaction(purpose) as transaction:
        images = _new_flat_images(repository, items)
        for image in images:
            for kind in _link_flat_image(repository, transaction, image):
                refused(kind)
        layers = _new_layers(repository, items)
        pairs = [(item.image, item.publication) for item in items]
        stored = podman_store.describe(repository, pairs)
        prepared = podman_store.prepare(repository, transaction, stored)
        with transaction.exclusive():
            coming = {layout.flat_image(image.manifest.image_id) for image in images}
            coming |= {layout.layer_directory(layer.digest) for layer in layers}
            for item in items:
                check_place(repository, item)
            _require_content(repository, items, coming)
            for path in podman_store.missing(repository, stored) - prepared:
                raise _collected(items[0].name, path)
            _add_layers(transaction, items, layers)
            leaving = podman_store.leaving(repository, [i.publication for i in items])
            status = record(repository, transaction, items, now())
            changed = podman_store.update(repository, transaction, stored, leaving)
            if changed and status is Status.UNCHANGED:
                status = Status.RECORDED
            transaction.commit()
    return status


def _add_layers(
    transaction: Transaction, items: Sequence[Item], layers: Sequence[_NewLayer]
) -> None:
    for layer in layers:
        transaction.add_layer(layer.digest, layer.fixups, layer.below)
    new = {layer.digest for layer in layers}
    for item in items:
        for each in item.image.manifest.layers:
            if each.digest not in new:
                # Another run may have published it while we fetched it: ours is not needed then.
                transaction.add_layer(each.digest, (), ())


def wait_for_others(repository: Repository, purpose: str) -> None:
    """Wait until whoever commits just now has done so."""
    with repository.transaction(purpose) as nothing, nothing.exclusive():
        pass


def _require_content(repository: Repository, items: Sequence[Item], coming: Set[str]) -> None:
    """Under the lock: everything that `items` name is there, or comes with this transaction."""
    for item in items:
        paths = [layout.layer_directory(layer.digest) for layer in item.image.manifest.layers]
        if "flat" in item.publication.outputs:
            paths.append(layout.flat_image(item.image.manifest.image_id))
        for path in paths:
            if path not in coming and not repository.exists(path):
                raise _collected(item.name, path)


def _collected(name: str, path: str) -> RepositoryChanged:
    return RepositoryChanged(f"cannot publish {name}", why=f"{path} was collected meanwhile")


def _new_flat_images(repository: Repository, items: Sequence[Item]) -> list[PlatformImage]:
    images = {
        item.image.manifest.image_id: item.image
        for item in items
        if "flat" in item.publication.outputs
    }
    return [i for d, i in images.items() if not repository.exists(layout.flat_image(d))]


def _link_flat_image(
    repository: Repository, transaction: Transaction, image: PlatformImage
) -> Mapping[str, int]:
    digests = [layer.digest for layer in image.manifest.layers]
    with flat_plan(repository, digests, image.config, image.document.digest) as plan:
        return transaction.link(layout.flat_image(image.manifest.image_id), plan, digests)


def _new_layers(repository: Repository, items: Sequence[Item]) -> list[_NewLayer]:
    """Return the layers that are not published yet, with what each needs from those below it.

    This is decided before the lock is taken, since it reads indexes; a layer that another image
    publishes in the meantime keeps what that image gave it.
    """
    new: dict[str, _NewLayer] = {}
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
            new[digests[number]] = _NewLayer(digests[number], tuple(needed), digests[:number])
    return list(new.values())
