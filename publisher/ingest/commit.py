"""Commit prepared images: one, or several of them in one transaction. All under the writer lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from publisher.entry import Fixup
from publisher.ingest.bookkeeping import record
from publisher.ingest.report import Status
from publisher.ingest.wanted import Item, check_place
from publisher.lazy import dataclass
from publisher.oci.image import PlatformImage
from publisher.repository import Repository, RepositoryChanged, Transaction
from publisher.repository.records import RecordSet
from publisher.runtimes.podman import store as podman_store
from publisher.runtimes.podman.format import StoreImage
from publisher.tree import layout
from publisher.tree.publication import Publication


@dataclass(frozen=True, slots=True)
class NewLayer:
    """A layer to be published, and what its tree needs from the layers `below` it."""

    digest: str
    fixups: tuple[Fixup, ...]
    below: Sequence[str]


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """One image for all its platforms and names, whose content `transaction` has prepared.

    Attributes:
        transaction: An open transaction that has prepared content, and has no change yet.
        items: The image, for each platform and name.
        purpose: What the commit is for, for other publishers and the history.
        now: The clock.
        images: The platforms with a new flat image.
        layers: The layers that are not published yet.
        intended: The records of `items`, as they are if no list has other terms.
        stored: What is added to the Podman store.
        directories: The directories of the Podman store that are prepared.
        bills: New bills of materials, by their paths.
    """

    transaction: Transaction
    items: Sequence[Item]
    purpose: str
    now: Callable[[], datetime]
    images: Sequence[PlatformImage]
    layers: Sequence[NewLayer]
    intended: Sequence[Publication]
    stored: Sequence[StoreImage]
    directories: frozenset[str]
    bills: Mapping[str, bytes]

    @property
    def names(self) -> frozenset[str]:
        """The names that the image is published under."""
        return frozenset(item.name for item in self.items)

    @property
    def coming(self) -> frozenset[str]:
        """The paths of content that the commit publishes."""
        flat = {layout.flat_image(image.manifest.image_id) for image in self.images}
        return frozenset(flat | {layout.layer_directory(layer.digest) for layer in self.layers})


class NotTogether(Exception):
    """An image changes something that only one image of a commit may change."""


class CommitFailed(Exception):
    """The commit of one or several images failed, possibly after they were published.

    A transaction that has passed its commit point is completed by the next one. `statuses` are
    those of the images, if they were published by this commit. The cause is the error.
    """

    def __init__(self, statuses: Sequence[Status]) -> None:
        super().__init__()
        self.statuses = statuses


def commit_alone(repository: Repository, image: PreparedImage) -> Status:
    """Commit one image in its own transaction; see `publish` for the errors.

    Raises:
        CommitFailed: The commit itself failed.
    """
    transaction = image.transaction
    with transaction.exclusive():
        records = RecordSet(repository)
        _check(repository, records, image)
        _add_layers(transaction, image)
        leaving = _leaving(records, image)
        status = record(records, transaction, image.items, image.now(), image.bills)
        changed = podman_store.update(
            repository, transaction, image.stored, leaving, image.directories
        )
        if changed and status is Status.UNCHANGED:
            status = Status.RECORDED
        records.write(transaction)
        try:
            transaction.commit()
        except Exception as error:
            raise CommitFailed([status]) from error
    return status


def is_published(repository: Repository, image: PreparedImage) -> bool:
    """Return whether the repository has the image, after completing an interrupted commit."""
    with repository.transaction(image.purpose) as transaction, transaction.exclusive():
        records = RecordSet(repository)
        _check(repository, records, replace(image, images=(), layers=(), directories=frozenset()))
        status = record(records, transaction, image.items, image.now(), image.bills)
    return status is Status.UNCHANGED  # what `record` would change is not committed


def commit_together(repository: Repository, images: Sequence[PreparedImage]) -> list[Status]:
    """Commit several images, which have no name in common, in one transaction.

    Each image sees the records as the images before it change them. After any error but
    CommitFailed nothing is published, and the transaction of each image is as it was before.

    Raises:
        CommitFailed: The commit itself failed.
        NotTogether: One of the images is in the Podman store, whose lists are single files.
    """
    first, *others = images
    purpose = f"{first.purpose}, and {len(others)} more"
    with repository.transaction(purpose) as transaction:
        for image in images:
            transaction.adopt(image.transaction)
        with transaction.exclusive():
            records = RecordSet(repository)
            statuses = []
            for image in images:
                _check(repository, records, image)
                if image.stored or _leaving(records, image):
                    raise NotTogether
                statuses.append(record(records, transaction, image.items, image.now(), image.bills))
            # Only when the records of all are in order: completing a layer cannot be undone.
            for image in images:
                _add_layers(transaction, image)
            records.write(transaction)
            try:
                transaction.commit()
            except Exception as error:
                raise CommitFailed(statuses) from error
    return statuses


def _check(repository: Repository, records: RecordSet, image: PreparedImage) -> None:
    """Check under the lock what may have changed since the image was prepared."""
    for item in image.items:
        check_place(records, item)
    for item in image.items:
        for path in item.content:
            if path not in image.coming and not repository.exists(path):
                raise _collected(item.name, path)
    for path in podman_store.missing(repository, image.stored) - image.directories:
        raise _collected(image.items[0].name, path)


def _leaving(records: RecordSet, image: PreparedImage) -> list[str]:
    """Return the names that leave the Podman store."""
    return [
        name
        for publication in image.intended
        for name in podman_store.leaving(
            records.readable_publication(publication.name), publication
        )
    ]


def _add_layers(transaction: Transaction, image: PreparedImage) -> None:
    for layer in image.layers:
        transaction.add_layer(layer.digest, layer.fixups, layer.below)
    new = {layer.digest for layer in image.layers}
    for item in image.items:
        for each in item.image.manifest.layers:
            if each.digest not in new:
                # If another run published it in the meantime, the staged layer is discarded.
                transaction.add_layer(each.digest, (), ())


def _collected(name: str, path: str) -> RepositoryChanged:
    return RepositoryChanged(f"cannot publish {name}", why=f"{path} was collected in the meantime")
