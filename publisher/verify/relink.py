"""Replace a flat image by one that is linked from its layers again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from publisher.errors import PublisherError
from publisher.repository import Repository, RepositoryChanged, Transaction
from publisher.repository.records import RecordSet
from publisher.runtimes import flat_files
from publisher.runtimes.flat_image import flat_plan
from publisher.tree import layout
from publisher.tree.record import InvalidRecord
from publisher.verify.hot_files import replace_bundle
from publisher.verify.inventory import LiveImage
from publisher.verify.survey import take_inventory

_TRIES = 3


def relink_flat_image(repository: Repository, image: LiveImage, why: str) -> None:
    """Replace the flat image of `image` by one that is linked from its layers again.

    If a concurrent publisher replaces one of the layers in the meantime, it is tried again.

    Args:
        repository: Opened for writing.
        image: A published or scheduled image.
        why: The reason, for the history.

    Raises:
        PublisherError: A layer's index or the image's config is missing or damaged.
        RepositoryChanged: Layers changed during each of several attempts.
    """
    for _ in range(_TRIES - 1):
        try:
            return _relink_once(repository, image, why)
        except RepositoryChanged:
            continue
    return _relink_once(repository, image, why)


def _relink_once(repository: Repository, image: LiveImage, why: str) -> None:
    with repository.transaction(f"repair of {image.name}") as transaction:
        _link_flat_image(repository, transaction, image)
        with transaction.exclusive():
            # An image that a concurrent publisher removed is not published again.
            if any(
                each.flat and each.manifest.image_id == image.manifest.image_id
                for each in take_inventory(repository).images
            ):
                _record_version(repository, transaction, image)
                replace_bundle(repository, transaction, image.manifest.image_id)
                transaction.record(image.name, "flat image linked anew", why)
                transaction.commit()


def _record_version(repository: Repository, transaction: Transaction, image: LiveImage) -> None:
    """Record which files for runtimes the flat image has; a damaged record is repaired later."""
    records = RecordSet(repository)
    image_id = image.manifest.image_id
    version = flat_files.VERSION if image.config is not None else 0
    with suppress(InvalidRecord):
        users = records.users(image_id)
        if users is not None:
            records.set_users(image_id, replace(users, runtime_files=version))
            records.write(transaction)


def _link_flat_image(repository: Repository, transaction: Transaction, image: LiveImage) -> None:
    if image.config is None and image.reference:
        raise PublisherError(
            f"cannot link the flat image of {image.name}",
            why="the image's config, from which the files for runtimes are made, is missing",
            hint="publisher verify --refetch",
        )
    layers = [layer.digest for layer in image.manifest.layers]
    with flat_plan(repository, layers, image.config, image.name) as plan:
        transaction.link(layout.flat_image(image.manifest.image_id), plan, layers, anew=True)
