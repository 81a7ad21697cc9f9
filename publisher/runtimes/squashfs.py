"""The output `squashfs`: an image as a single file, for places without a mount.

The file has the content of the flat image. It is made from the published layers, after the commit
that publishes the image, and becomes visible together with its link in a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.entry import EntryType, Generated, Merged
from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.oci.manifest import parse_published_manifest
from publisher.repository import Repository, RepositoryChanged, Transaction
from publisher.repository.records import RecordSet
from publisher.tree import layout
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord
from publisher.tree.users import SquashfsFile

if TYPE_CHECKING:
    from publisher.oci.config import ImageConfig
    from publisher.runtimes.squashfs_file import Planned

OUTPUT = "squashfs"


@dataclass(frozen=True, slots=True)
class SquashfsImage:
    """An image to be written: its ID, the digests of its layers, bottom to top, and its config.

    `name` names it in errors and in the history.
    """

    name: str
    image_id: str
    layers: Sequence[str]
    config: ImageConfig


def is_current(records: RecordSet, publication: Publication) -> bool:
    """Return whether the published image has the file that its outputs request, and its link."""
    if OUTPUT not in publication.outputs:
        return True
    name, image_id = publication.name, publication.image_id
    target = layout.squashfs_target(name, image_id)
    linked = records.link(layout.squashfs_link(name)) == target
    return linked and _has_file(records, image_id)


def publish_squashfs(
    repository: Repository, name: str, check_stop: Callable[[], None] = lambda: None
) -> bool:
    """Publish the file and the link of the image `name`, if it has this output and lacks them.

    Args:
        repository: Opened for writing.
        name: A public name.
        check_stop: Called before each entry is written; an exception from it ends the writing.

    Returns:
        Whether anything was changed.

    Raises:
        SquashfsError: The file cannot be written.
        RepositoryChanged: A layer was collected in the meantime.
    """
    with repository.transaction(f"squashfs file of {name}") as transaction:
        # At a gateway, only a transaction is certain to see what this process has just published.
        with transaction.exclusive():
            records = RecordSet(repository)
            publication = records.publication(name)
            if publication is None or is_current(records, publication):
                return False
            image = _published(records, publication)
        written = None
        if not _has_file(records, image.image_id):
            written = _prepare(repository, transaction, image, check_stop)
        with transaction.exclusive():
            records = RecordSet(repository)
            current = records.publication(name)
            if current is None or (current.image_id, current.outputs) != (
                publication.image_id,
                publication.outputs,
            ):
                return False  # a concurrent run publishes the file of the other image
            if written is not None:
                _set_file(records, image, written)
            elif not _has_file(records, image.image_id):
                raise RepositoryChanged(
                    f"cannot link the squashfs file of {name}", why="it was collected meanwhile"
                )
            records.set_squashfs_link(name, image.image_id)
            transaction.record(name, "published as a squashfs file", image.image_id)
            records.write(transaction)
            transaction.commit()
    return True


def remove_unrequested(records: RecordSet, image_id: str) -> bool:
    """Remove the file of an image that no published or scheduled image requests any more.

    Returns:
        Whether anything was changed.
    """
    users = records.users(image_id)
    if users is None or users.squashfs is None:
        return False
    if any(_may_request(records, *user) for user in users.users):
        return False
    records.set_users(image_id, replace(users, squashfs=None))
    if records.repository.exists(layout.squashfs_file(image_id)):
        records.remove(layout.squashfs_file(image_id))
    return True


def rewrite_squashfs(repository: Repository, image: SquashfsImage, why: str) -> None:
    """Write the file of a published or scheduled image anew, in a transaction."""
    with repository.transaction(f"repair of {image.name}") as transaction:
        written = _prepare(repository, transaction, image)
        with transaction.exclusive():
            records = RecordSet(repository)
            if records.users(image.image_id) is None:
                return  # collected meanwhile
            _set_file(records, image, written)
            transaction.record(image.name, "squashfs file written anew", why)
            records.write(transaction)
            transaction.commit()


def _prepare(
    repository: Repository,
    transaction: Transaction,
    image: SquashfsImage,
    check_stop: Callable[[], None] = lambda: None,
) -> SquashfsFile:
    """Write the file of an image into `transaction`; return its digest and size."""
    import hashlib  # loaded with what writes files: gc uses this module, too

    from publisher.runtimes.flat_image import flat_plan
    from publisher.runtimes.squashfs_file import (
        COMPRESSOR,
        FORMAT,
        program_version,
        write_squashfs,
    )

    program = program_version()
    written = []

    def write(place: Path) -> None:
        with flat_plan(repository, image.layers, image.config, image.name) as plan:
            tree = _contents(repository, image.layers, plan, check_stop)
            write_squashfs(place, tree, _created(image.config))
        with place.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = place.stat().st_size
        written.append(SquashfsFile(f"sha256:{digest}", size, FORMAT, COMPRESSOR, program))

    transaction.add_file(layout.squashfs_file(image.image_id), write)
    return written[0]


def _set_file(records: RecordSet, image: SquashfsImage, written: SquashfsFile) -> None:
    """Record the file of an image.

    Raises:
        PublisherError: The record of the image's users is missing.
    """
    users = records.users(image.image_id)
    if users is None:
        raise PublisherError(
            f"cannot publish the squashfs file of {image.name}",
            why="the record of the image's users is missing",
            hint="publisher verify --repair",
        )
    records.set_users(image.image_id, replace(users, squashfs=written))


def _has_file(records: RecordSet, image_id: str) -> bool:
    users = records.users(image_id)
    is_recorded = users is not None and users.squashfs is not None
    return is_recorded and records.repository.exists(layout.squashfs_file(image_id))


def _may_request(records: RecordSet, name: str, manifest_digest: str) -> bool:
    """Return whether a published or scheduled image has the output, or its record is unreadable."""
    publication = records.readable_publication(name)
    if publication is None or publication.manifest_digest != manifest_digest:
        path = f"{layout.retired_directory(manifest_digest)}/{layout.PUBLICATION_FILE}"
        try:
            publication = Publication.parse(records.file(path) or b"", path)
        except InvalidRecord:
            return True
    return OUTPUT in publication.outputs


def _published(records: RecordSet, publication: Publication) -> SquashfsImage:
    from publisher.oci.config import parse_config

    name, image_id = publication.name, publication.image_id
    manifest = parse_published_manifest(records.file(layout.manifest_file(name)) or b"")
    config = parse_config(records.file(layout.config_file(name)) or b"", image_id)
    return SquashfsImage(name, image_id, [layer.digest for layer in manifest.layers], config)


def _contents(
    repository: Repository,
    layers: Sequence[str],
    plan: Iterable[Merged | Generated],
    check_stop: Callable[[], None],
) -> Iterator[Planned]:
    """Yield the entries of a flat image with their contents, from the published layers."""
    for planned in plan:
        check_stop()
        if isinstance(planned, Generated):
            yield planned.entry, [planned.content]
        elif planned.entry.type is EntryType.FILE:
            tree = layout.layer_tree(layers[planned.layer])
            yield planned.entry, repository.content(f"{tree}/{planned.source}")
        else:
            yield planned.entry, ()


def _created(config: ImageConfig) -> int:
    """Return the time at which the image was created, in seconds since 1970; 0 if unknown."""
    try:
        return max(0, int(datetime.fromisoformat(config.created).timestamp()))
    except (ValueError, OverflowError):
        return 0
