"""Take images off the remove schedule: the use case behind `publisher restore`.

A retired image is published again only if all its content still exists; otherwise nothing changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from publisher.errors import PublisherError
from publisher.oci.config import parse_config
from publisher.oci.digest import digest_like
from publisher.removal.names import Target, find_target
from publisher.repository import Repository, Transaction
from publisher.repository.records import IMAGE_FILES, RecordSet
from publisher.repository.scheduling import restore_link, schedule_removal
from publisher.runtimes import squashfs
from publisher.runtimes.podman import store as podman_store
from publisher.sbom import output as sbom
from publisher.tree import layout
from publisher.tree.publication import Publication
from publisher.tree.schedule import Reason, ScheduledRemoval
from publisher.wishlist import OUTPUTS

_log = logging.getLogger(__name__)


class NotScheduled(PublisherError):
    """The image `name` is not on the remove schedule.

    `scheduled` are the images, as NAME@DIGEST, that its tag named before and that are on it.
    """

    def __init__(self, *, name: str, scheduled: Sequence[str], why: str, hint: str = "") -> None:
        super().__init__(f"cannot restore {name}", why=why, hint=hint)
        self.name = name
        self.scheduled = tuple(scheduled)


class CannotRestore(PublisherError):
    """A scheduled image cannot be published again: a file that it needs is missing or damaged.

    `name` and `manifest_digest` are those of the image; `path` is the file or tree, relative to the
    repository.
    """

    def __init__(self, entry: ScheduledRemoval, *, path: str, why: str, hint: str) -> None:
        super().__init__(f"cannot restore {entry.name}", why=why, hint=hint)
        self.name = entry.name
        self.manifest_digest = entry.manifest_digest
        self.path = path


def restore(repository: Repository, image: str, now: Callable[[], datetime]) -> list[str]:
    """Take `image` off the schedule; publish it again if it is retired.

    NAME@DIGEST means a retired image. It replaces the published image of that name, which is
    scheduled.

    Returns:
        The public names of the restored images.

    Raises:
        NotScheduled: The image is not scheduled, or only retired images of that name are.
        NotPublished: No such image is published or scheduled.
        CannotRestore: A file that it needs is missing or damaged.
        ImagePinned: The image that would be replaced is pinned.
    """
    with (
        repository.transaction(f"restoration of {image}") as transaction,
        transaction.exclusive(),
    ):
        records = RecordSet(repository)
        target = find_target(records, image)
        entries = [e for e in records.schedule.all() if target.includes(*e.key)]
        entries.sort(key=lambda entry: (*layout.split_platform(entry.name), entry.manifest_digest))
        chosen = [e for e in entries if target.digest or records.is_published(*e.key)]
        if not chosen:
            raise _nothing_to_restore(target, entries)
        for entry in chosen:
            if records.is_published(*entry.key):
                restore_link(records, entry.name)
            else:
                _publish_again(records, transaction, entry, now())
            records.schedule.remove(*entry.key)
            transaction.record(entry.name, "restored", entry.manifest_digest)
        records.write(transaction)
        transaction.commit()
    return [entry.name for entry in chosen]


def _nothing_to_restore(target: Target, entries: list[ScheduledRemoval]) -> NotScheduled:
    if not entries:
        return NotScheduled(
            name=target.name, scheduled=(), why="it is published, and not scheduled for removal"
        )
    latest = max(entries, key=lambda entry: entry.scheduled_at)
    scheduled = [f"{e.name}@{e.manifest_digest}" for e in entries]
    return NotScheduled(
        name=target.name,
        scheduled=scheduled,
        why=f"only earlier images of its tag are scheduled: {', '.join(scheduled)}",
        hint=f"publisher restore {latest.name}@{latest.manifest_digest}",
    )


def _publish_again(
    records: RecordSet, transaction: Transaction, entry: ScheduledRemoval, now: datetime
) -> None:
    """Publish a retired image under its name again, and schedule the one that it replaces."""
    repository = records.repository
    files, retired = _retired_files(records, entry)
    _require_content(repository, entry, retired)
    current = records.publication(entry.name)
    outputs = set(retired.outputs)
    if current is not None:
        # The same image may have been retired later under another name, with other outputs.
        for output, path in _optional_content(entry).items():
            if repository.exists(path):
                outputs |= {output} & set(current.outputs)
    publication = replace(
        retired,
        name=entry.name,
        reference=entry.reference,
        published_at=now,
        outputs=tuple(output for output in OUTPUTS if output in outputs),
    ).with_wish_lists(current.wish_lists if current else ())
    if records.manifest(entry.name) is not None:
        schedule_removal(records, entry.name, Reason.REPLACED, now)
    for file, content in files.items():
        records.set_file(f"{layout.image_metadata(entry.name)}/{file}", content)
    records.set_publication(publication)
    if "flat" in publication.outputs:
        records.set_link(entry.name, entry.image_id)
    else:
        records.remove_link(entry.name)  # the link of the replaced image
    if squashfs.OUTPUT in publication.outputs:
        records.set_squashfs_link(entry.name, entry.image_id)
    else:
        records.remove_squashfs_link(entry.name)
    _restore_bills(records, entry, publication, files[layout.CONFIG_FILE])
    podman_store.move_name(repository, transaction, publication)


def _restore_bills(
    records: RecordSet, entry: ScheduledRemoval, publication: Publication, config: bytes
) -> None:
    """Make the bills of materials again; without them `verify` has a finding, which it repairs."""
    documents: Mapping[str, bytes] = {}
    if sbom.OUTPUT in publication.outputs:
        layers = [layer.digest for layer in entry.parse_manifest().layers]
        try:
            documents = sbom.bill_of_materials(
                records.repository,
                entry.name,
                entry.manifest_digest,
                layers,
                parse_config(config, entry.image_id),
            )
        except (PublisherError, OSError) as error:
            _log.warning("%s is restored without its bill of materials: %s", entry.name, error)
    records.set_bills(entry.name, documents)


def _retired_files(
    records: RecordSet, entry: ScheduledRemoval
) -> tuple[dict[str, bytes], Publication]:
    """Return the metadata of a retired image after checking it, and its publication."""
    retired = layout.retired_directory(entry.manifest_digest)
    files: dict[str, bytes] = {}
    for file in IMAGE_FILES:
        content = records.file(f"{retired}/{file}")
        if content is None:
            raise _cannot_restore(entry, f"{retired}/{file}", "missing")
        files[file] = content
    for file, digest in (
        (layout.MANIFEST_FILE, entry.manifest_digest),
        (layout.CONFIG_FILE, entry.image_id),
    ):
        if digest_like(files[file], digest) != digest:
            raise _cannot_restore(entry, f"{retired}/{file}", "damaged")
    record = files.pop(layout.PUBLICATION_FILE)
    return files, Publication.parse(record, f"{retired}/{layout.PUBLICATION_FILE}")


def _require_content(
    repository: Repository, entry: ScheduledRemoval, publication: Publication
) -> None:
    paths = [layout.layer_directory(layer.digest) for layer in entry.parse_manifest().layers]
    optional = _optional_content(entry)
    paths += [path for output, path in optional.items() if output in publication.outputs]
    for path in paths:
        if not repository.exists(path):
            raise CannotRestore(
                entry,
                path=path,
                why=f"{path} is missing",
                hint="publisher verify --repair --refetch",
            )


def _optional_content(entry: ScheduledRemoval) -> dict[str, str]:
    """Return the paths of what an image has beside its layers, by output."""
    return {
        "flat": layout.flat_image(entry.image_id),
        squashfs.OUTPUT: layout.squashfs_file(entry.image_id),
    }


def _cannot_restore(entry: ScheduledRemoval, path: str, state: str) -> CannotRestore:
    return CannotRestore(
        entry,
        path=path,
        why=f"{path} is {state}; its content stays until it is collected",
        hint=f"publish {entry.manifest_digest} from its registry again: `publisher ingest-image "
        f"{entry.reference.partition('@')[0]}@{entry.manifest_digest}`",
    )
