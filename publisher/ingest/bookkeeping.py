"""What a transaction writes down of the images that it publishes. All under the writer lock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from publisher.errors import InvalidManifest
from publisher.ingest.report import Status
from publisher.ingest.wanted import Item, joined, says_the_same
from publisher.oci.manifest import Manifest, parse_published_manifest
from publisher.repository import Repository, Transaction
from publisher.repository.reading import (
    count_usage,
    current_manifest,
    load_origin,
    load_pins,
    load_publication,
    load_schedule,
    load_users,
)
from publisher.times import later
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.pins import check_pin
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import RemoveSchedule, ScheduledRemoval
from publisher.tree.users import ImageUsers


def record(
    repository: Repository,
    transaction: Transaction,
    items: Sequence[Item],
    now: datetime,
) -> Status:
    """Fill the transaction from the state that, under the lock, nobody changes any more."""
    schedule_before = load_schedule(repository)
    schedule = schedule_before
    _record_users(repository, transaction, items)
    pins = load_pins(repository)
    status = Status.UNCHANGED
    for item in items:
        found = load_publication(repository, item.name)
        retired = _retire(repository, transaction, item, schedule.latest(now))
        if retired is not None:
            check_pin(pins, item.name, retired.manifest_digest, now)
            schedule = schedule.with_entry(retired)
            transaction.record(
                item.name, "scheduled", f"its tag moved away from {retired.manifest_digest}"
            )
            status = Status.UPDATED
        elif found is None:
            status = Status.PUBLISHED if status is Status.UNCHANGED else status
        schedule = schedule.without(item.name, item.publication.manifest_digest)
        if _write_metadata(repository, transaction, item, found):
            transaction.record(item.name, "published", item.publication.manifest_digest)
            status = Status.RECORDED if status is Status.UNCHANGED else status

    if schedule != schedule_before:
        transaction.replace(layout.REMOVE_SCHEDULE, schedule.to_bytes())
        _forget_retired(transaction, schedule_before, schedule)
        status = Status.RECORDED if status is Status.UNCHANGED else status
    return status


def _record_users(repository: Repository, transaction: Transaction, items: Sequence[Item]) -> None:
    """Write down which images use the layers, and which names the images."""
    origins: dict[str, Origin] = {}
    users: dict[str, ImageUsers] = {}
    for item in items:
        manifest = item.image.manifest
        image_id = manifest.image_id
        if image_id not in users:
            known = _known_users(repository, manifest)
            if known is not None:
                users[image_id] = known
        if image_id in users:
            user = (item.name, item.publication.manifest_digest)
            users[image_id] = ImageUsers(users[image_id].users | {user})
        for layer in manifest.layers:
            path = layout.layer_origin(layer.digest)
            if path not in origins:
                origins[path] = load_origin(repository, layer.digest) or Origin()
            origins[path] = origins[path].with_image(image_id)
    records = {path: origin.to_bytes() for path, origin in origins.items()}
    records |= {layout.image_users(image_id): each.to_bytes() for image_id, each in users.items()}
    for path, content in sorted(records.items()):
        if repository.read(path) != content:
            transaction.replace(path, content)


def _known_users(repository: Repository, manifest: Manifest) -> ImageUsers | None:
    """Who uses the image so far; None where that cannot be told, and so is not written down."""
    recorded = load_users(repository, manifest.image_id)
    if recorded is not None:
        return recorded
    origins = (load_origin(repository, layer.digest) for layer in manifest.layers)
    if not repository.exists(layout.flat_image(manifest.image_id)) and not any(
        origin is not None and manifest.image_id in origin.images for origin in origins
    ):
        return ImageUsers()
    # Another tool published it, which keeps no such record.
    try:
        return ImageUsers(frozenset(count_usage(repository).images.get(manifest.image_id, ())))
    except (InvalidManifest, InvalidRecord):
        return None  # a collection does not touch the image then


def _retire(
    repository: Repository,
    transaction: Transaction,
    item: Item,
    now: datetime,
) -> ScheduledRemoval | None:
    """Schedule the image that `item` replaces under its name, if it replaces one."""
    current = current_manifest(repository, item.name)
    if current is None or current[0] == item.publication.manifest_digest:
        return None
    digest, data = current
    manifest = parse_published_manifest(data)
    found = load_publication(repository, item.name)
    directory = layout.retired_directory(digest)
    for file in (layout.MANIFEST_FILE, layout.CONFIG_FILE, layout.PUBLICATION_FILE):
        content = repository.read(f"{layout.image_metadata(item.name)}/{file}")
        if content is not None:
            transaction.replace(f"{directory}/{file}", content)
    began = max(now, found.published_at) if found else now
    return ScheduledRemoval(
        name=item.name,
        reference=found.reference if found else item.publication.reference,
        manifest_digest=digest,
        image_id=manifest.image_id,
        manifest=json.loads(data),
        reason="tag-moved",
        scheduled_at=began,
        not_before=later(began, timedelta(seconds=joined(found, item.publication).grace_seconds)),
    )


def _forget_retired(
    transaction: Transaction, before: RemoveSchedule, after: RemoveSchedule
) -> None:
    for digest in sorted({e.manifest_digest for e in before.entries}):
        if not after.names_manifest(digest):
            transaction.remove(layout.retired_directory(digest))


def _write_metadata(
    repository: Repository, transaction: Transaction, item: Item, found: Publication | None
) -> bool:
    """Write what differs from what is there; False if nothing does."""
    changed = False
    for path, content in (
        (layout.manifest_file(item.name), item.image.document.data),
        (layout.config_file(item.name), item.image.config_document.data),
    ):
        if repository.read(path) != content:
            transaction.replace(path, content)
            changed = True
    publication = joined(found, item.publication)
    if found is None or not says_the_same(found, publication) or changed:
        transaction.replace(layout.publication_file(item.name), publication.to_bytes())
        changed = True
    link = repository.link_text(item.name)
    if "flat" not in item.publication.outputs:
        if link is not None:
            transaction.remove(item.name)
            changed = True
        return changed
    target = layout.link_target(item.name, item.image.manifest.image_id)
    if link != target:
        transaction.symlink(item.name, target)
        changed = True
    return changed
