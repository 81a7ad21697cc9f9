"""Write the records of the images that a transaction publishes, under the writer lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from publisher.errors import InvalidManifest
from publisher.ingest.report import Status
from publisher.ingest.wanted import Item, joined_terms
from publisher.oci.manifest import Manifest
from publisher.repository import Transaction
from publisher.repository.reading import count_usage
from publisher.repository.records import RecordSet
from publisher.repository.scheduling import schedule_removal
from publisher.runtimes import flat_files, squashfs
from publisher.sbom import output as sbom
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.pins import check_pin
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import Reason
from publisher.tree.users import ImageUsers


def record(
    records: RecordSet,
    transaction: Transaction,
    items: Sequence[Item],
    now: datetime,
    bills: Mapping[str, bytes],
) -> Status:
    """Change `records` so that they describe `items` as published; return the status of the image.

    `bills` are new bills of materials, by their paths.

    The image that is replaced under a name is scheduled for removal. An image that is requested
    again is taken off the schedule.

    Raises:
        ImagePinned: The image that would be replaced is pinned.
        InvalidRecord: A record that has to be changed is damaged.
    """
    _count_references(records, items)
    status = Status.UNCHANGED
    for item in items:
        found = records.readable_publication(item.name)
        if _retire(records, transaction, item, found, now):
            status = Status.UPDATED
        elif found is None and status is Status.UNCHANGED:
            status = Status.PUBLISHED
        changed = records.schedule.remove(item.name, item.manifest_digest)
        if _describe(records, item, found, now, bills):
            transaction.record(item.name, "published", item.manifest_digest)
            changed = True
        if changed and status is Status.UNCHANGED:
            status = Status.RECORDED
    return status


def _count_references(records: RecordSet, items: Sequence[Item]) -> None:
    """Record which images use the layers, and their chain IDs; and which names use the images."""
    for item in items:
        manifest = item.image.manifest
        known = _known_users(records, manifest)
        for digest in {layer.digest: None for layer in manifest.layers}:
            origin = records.origin(digest) or Origin()
            records.set_origin(digest, origin.with_image(manifest.image_id))
        layers = [layer.digest for layer in manifest.layers]
        records.add_chains(layers, item.image.config.diff_ids)
        if known is not None:
            user = (item.name, item.manifest_digest)
            new = replace(known, users=known.users | {user})
            # A gateway may have the flat image before its records.
            is_new = not known.users or not _has_flat_image(records, manifest)
            if "flat" in item.wanted.outputs and is_new:
                new = replace(new, runtime_files=flat_files.VERSION)
            records.set_users(manifest.image_id, new)


def _has_flat_image(records: RecordSet, manifest: Manifest) -> bool:
    return records.repository.exists(layout.flat_image(manifest.image_id))


def _known_users(records: RecordSet, manifest: Manifest) -> ImageUsers | None:
    """Return the names that use the image so far; None if they cannot be determined."""
    recorded = records.users(manifest.image_id)
    if recorded is not None:
        return recorded
    origins = (records.origin(layer.digest) for layer in manifest.layers)
    if not _has_flat_image(records, manifest) and not any(
        origin is not None and manifest.image_id in origin.images for origin in origins
    ):
        return ImageUsers()
    # The image was published by another program, which writes no such record.
    try:
        usage = count_usage(records.repository)
    except (InvalidManifest, InvalidRecord):
        return None  # `publisher gc` keeps an image without this record
    return ImageUsers(frozenset(usage.images.get(manifest.image_id, ())))


def _retire(
    records: RecordSet,
    transaction: Transaction,
    item: Item,
    found: Publication | None,
    now: datetime,
) -> bool:
    """Schedule the image that `item` replaces under its name; return whether it replaces one."""
    current = records.manifest(item.name)
    if current is None or current.digest == item.manifest_digest:
        return False
    if not _is_sound(records, item.name, found):
        # The replaced image cannot be scheduled; `publisher verify` finds its content.
        if found is not None and found.manifest_digest != item.manifest_digest:
            check_pin(records.pins, item.name, found.manifest_digest, now)
        transaction.record(item.name, "replaced", "the published manifest was damaged")
        return False
    schedule_removal(
        records,
        item.name,
        Reason.TAG_MOVED,
        now,
        grace=timedelta(seconds=joined_terms(found, item.wanted).grace_seconds),
        reference=item.wanted.reference,
    )
    transaction.record(item.name, "scheduled", f"its tag moved away from {current.digest}")
    return True


def _is_sound(records: RecordSet, name: str, found: Publication | None) -> bool:
    """Return whether the published manifest is valid and agrees with its record."""
    current = records.manifest(name)
    try:
        return (
            current is not None
            and (found is None or found.manifest_digest == current.digest)
            and bool(current.parse())
        )
    except InvalidManifest:
        return False


def _describe(
    records: RecordSet,
    item: Item,
    found: Publication | None,
    now: datetime,
    bills: Mapping[str, bytes],
) -> bool:
    """Write the image's metadata and link where they differ; return whether any did."""
    is_other = records.set_file(layout.manifest_file(item.name), item.image.document.data)
    changed = records.set_file(layout.config_file(item.name), item.image.config_document.data)
    changed |= is_other
    publication = item.publication(joined_terms(found, item.wanted), now)
    if changed or found is None or not _same_content(found, publication):
        changed |= records.set_publication(publication)
    if squashfs.OUTPUT not in publication.outputs:
        changed |= records.remove_squashfs_link(item.name)
        changed |= squashfs.remove_unrequested(records, publication.image_id)
    documents = {path: bills[path] for path in layout.sbom_files(item.name) if path in bills}
    if is_other or documents or sbom.OUTPUT not in publication.outputs:
        changed |= records.set_bills(item.name, documents)
    if "flat" in publication.outputs:
        return records.set_link(item.name, publication.image_id) or changed
    return records.remove_link(item.name) or changed


def _same_content(one: Publication, other: Publication) -> bool:
    """Return whether two records are equal except for their times."""
    keys = ("source_digest", "manifest_digest", "image_id", "platform", "outputs", "reference")
    return one.terms.same_as(other.terms) and all(
        getattr(one, key) == getattr(other, key) for key in keys
    )
