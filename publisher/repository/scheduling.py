"""Put a published image on the remove schedule, for all commands that do this."""

from __future__ import annotations

from datetime import datetime, timedelta

from publisher.codec import JsonObject
from publisher.repository.published import NotPublished
from publisher.repository.records import IMAGE_FILES, RecordSet
from publisher.times import later
from publisher.tree import layout
from publisher.tree.pins import check_pin
from publisher.tree.schedule import DEFAULT_GRACE, Reason, ScheduledRemoval


def schedule_removal(
    records: RecordSet,
    name: str,
    reason: Reason,
    now: datetime,
    *,
    grace: timedelta | None = None,
    reference: str = "",
) -> tuple[ScheduledRemoval, bool]:
    """Put the image that is published as `name` on the remove schedule.

    An image that is scheduled already keeps its entry, and with it its time. If another image
    replaces it under its name, its metadata is kept with the entry.

    Args:
        records: The records, under the writer lock; nothing is written yet.
        name: A public name.
        reason: The reason; TAG_MOVED and REPLACED mean that another image replaces it.
        now: The time of scheduling, unless the clock was set back since an earlier one.
        grace: How long the image stays usable; by default the grace period of its wish.
        reference: The reference to record if the image has no publication.

    Returns:
        The entry, and whether it is new.

    Raises:
        NotPublished: No image is published as `name`.
        ImagePinned: The image is pinned.
        InvalidManifest: The published manifest is damaged.
    """
    current = records.manifest(name)
    if current is None:
        raise NotPublished(f"no image is published as {name}", name=name)
    leaves_name = reason in (Reason.TAG_MOVED, Reason.REPLACED)
    action = "move the tag of" if leaves_name else "schedule"
    check_pin(records.pins, name, current.digest, now, action)
    manifest = current.parse()
    if leaves_name:
        _keep_metadata(records, name, current.digest)
    found = records.schedule.find(name, current.digest)
    if found is not None:
        return found, False
    publication = records.readable_publication(name)
    if grace is None:
        grace = timedelta(seconds=publication.grace_seconds) if publication else DEFAULT_GRACE
    # A clock that was set back must not shorten the grace period.
    began = records.schedule.latest(max(now, publication.published_at) if publication else now)
    began = began.replace(microsecond=0)
    entry = ScheduledRemoval(
        name=name,
        reference=publication.reference if publication else reference or name,
        manifest_digest=current.digest,
        image_id=manifest.image_id,
        manifest=JsonObject.parse(current.data),
        reason=reason,
        scheduled_at=began,
        not_before=later(began, grace),
    )
    records.schedule.put(entry)
    return entry, True


def remove_scheduled_link(records: RecordSet, entry: ScheduledRemoval) -> ScheduledRemoval:
    """Remove the public links of a scheduled image now; the image itself keeps its grace period."""
    records.remove_link(entry.name, entry.image_id)
    records.remove_squashfs_link(entry.name, entry.image_id)
    changed = entry.without_link()
    records.schedule.put(changed)
    return changed


def restore_link(records: RecordSet, name: str) -> None:
    """Create the public links again that the image should have, if their targets exist."""
    publication = records.publication(name)
    if publication is None:
        return
    exists, image_id = records.repository.exists, publication.image_id
    if "flat" in publication.outputs and exists(layout.flat_image(image_id)):
        records.set_link(name, image_id)
    if "squashfs" in publication.outputs and exists(layout.squashfs_file(image_id)):
        records.set_squashfs_link(name, image_id)


def _keep_metadata(records: RecordSet, name: str, manifest_digest: str) -> None:
    for file in IMAGE_FILES:
        content = records.file(f"{layout.image_metadata(name)}/{file}")
        if content is not None:
            records.set_file(f"{layout.retired_directory(manifest_digest)}/{file}", content)
