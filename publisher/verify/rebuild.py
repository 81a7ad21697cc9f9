"""Rebuild records from the rest of the repository, and from readable parts of damaged records.

Unknown values are chosen so that content is kept: a grace period begins again, and a pin has no
end. The next ingest of an image completes its publication.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from publisher.codec import JsonObject
from publisher.errors import InvalidManifest, PublisherError
from publisher.oci.manifest import Manifest
from publisher.oci.reference import parse_reference
from publisher.repository import Repository
from publisher.repository.damaged import read_damaged
from publisher.repository.schedule_files import schedule_files
from publisher.times import format_time, later
from publisher.tree import layout
from publisher.tree import pins as pins_format
from publisher.tree import publication as publication_format
from publisher.tree import schedule as schedule_format
from publisher.tree.pins import Pin, Pins
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import DEFAULT_GRACE, Reason, RemoveSchedule, ScheduledRemoval
from publisher.tree.users import ImageUsers
from publisher.verify.inventory import Inventory, LiveImage
from publisher.verify.salvage import salvage_entries, salvage_fields
from publisher.verify.schedule import read_retired
from publisher.wishlist import DEFAULT_OUTPUTS, OUTPUTS

REBUILT = "rebuilt by publisher verify"
"""The note of a rebuilt publication whose own note is lost."""

_LONGEST_GRACE = timedelta(days=100 * 365)
_OPTIONAL = ("wishList", "owner", "note", "graceSeconds", "otherLists")


def rebuild_publication(repository: Repository, image: LiveImage, now: datetime) -> Publication:
    """Rebuild the record of a published image from its manifest, config, link and name.

    Raises:
        PublisherError: The image's config is missing, so that its platform is unknown.
    """
    path = layout.publication_file(image.name)
    if image.config is None:
        raise PublisherError(
            f"cannot rebuild {path}",
            why="the image's config is unreadable as well",
            hint="publisher verify --refetch",
        )
    forms = {"layers"}
    if repository.link_text(image.name) is not None:
        forms.add("flat")
    if repository.link_text(layout.squashfs_link(image.name)) is not None:
        forms.add("squashfs")
    if any(map(repository.exists, layout.sbom_files(image.name))):
        forms.add("sbom")
    certain = {
        "name": image.name,
        "manifestDigest": image.manifest_digest,
        "imageId": image.manifest.image_id,
    }
    likely = {
        "reference": reference_of(repository, path, image.name),
        "sourceDigest": image.manifest_digest,
        "platform": str(image.config.platform.normalized()),
        "outputs": [output for output in OUTPUTS if output in forms],
        "publishedAt": format_time(now),
    }
    return _rebuilt(read_damaged(repository, path) or b"", path, certain, likely)


def rebuild_retired_publication(
    repository: Repository, inventory: Inventory, path: str, now: datetime
) -> Publication:
    """Rebuild the record of a retired image from its entry in the remove schedule.

    Raises:
        PublisherError: The image is not on the schedule, or its config is missing.
    """
    directory = path.rpartition("/")[0]
    for image in inventory.images:
        if image.linked or layout.retired_directory(image.manifest_digest) != directory:
            continue
        if image.config is not None or repository.exists(f"{directory}/{layout.CONFIG_FILE}"):
            break
    else:
        raise PublisherError(f"cannot rebuild {path}", why="its image is not on the schedule")
    forms = set(DEFAULT_OUTPUTS)
    if not repository.exists(layout.flat_image(image.manifest.image_id)):
        forms -= {"flat"}
    if repository.exists(layout.squashfs_file(image.manifest.image_id)):
        forms.add("squashfs")
    certain = {
        "name": image.name,
        "manifestDigest": image.manifest_digest,
        "imageId": image.manifest.image_id,
    }
    likely = {
        "reference": image.reference,
        "sourceDigest": image.manifest_digest,
        "platform": str(image.config.platform.normalized()) if image.config else "linux/amd64",
        "outputs": [output for output in OUTPUTS if output in forms],
        "publishedAt": format_time(now),
    }
    return _rebuilt(read_damaged(repository, path) or b"", path, certain, likely)


def reference_of(repository: Repository, path: str, name: str) -> str:
    """Return the image reference in a damaged publication, or else the one that its name implies.

    Returns "" if neither is known: for an image of a layout, an archive or an engine.
    """
    found = salvage_fields(read_damaged(repository, path) or b"", ["reference"]).get("reference")
    name = layout.split_platform(name)[1]
    guesses = [found] if name.startswith(f"{layout.LOCAL}/") else [found, name]
    for guess in guesses:
        try:
            if isinstance(guess, str):
                parse_reference(guess)
                return guess
        except PublisherError:
            continue
    return ""


def rebuild_schedule(
    repository: Repository, inventory: Inventory, now: datetime
) -> list[ScheduledRemoval]:
    """Rebuild the remove schedule from its readable entries and the other retired images.

    The grace period of an image without a readable entry begins at `now`.
    """
    entries = {entry.key: entry for entry in _readable_entries(repository)}
    published = {(image.name, image.manifest_digest) for image in inventory.images}
    unreadable = inventory.names - {image.name for image in inventory.images}
    for entry in _retired_entries(repository, now):
        # The image may still be published under a name whose manifest is unreadable.
        if entry.key not in published and entry.name not in unreadable:
            entries.setdefault(entry.key, entry)
    for entry in _entries_of_published(repository, inventory, now):
        entries.setdefault(entry.key, entry)
    return list(entries.values())


def rebuild_pins(repository: Repository, inventory: Inventory, now: datetime) -> Pins:
    """Rebuild the pins from their readable entries and the history.

    The history has no digests. A pin from it applies to the published image, and has no end.
    """
    pins = Pins(tuple(_readable_pins(read_damaged(repository, layout.PINS) or b"")))
    known = {pin.name for pin in pins.pins}
    for pin in pins_of_history(repository, inventory, now):
        if pin.name not in known:
            pins = pins.with_pin(pin)
    return pins


def pins_of_history(repository: Repository, inventory: Inventory, now: datetime) -> Iterator[Pin]:
    """Return a pin for each published image whose latest change of pins was a pin."""
    current = {image.name: image.manifest_digest for image in inventory.images if image.linked}
    decided: set[str] = set()
    for record in repository.history():
        for change in record.changes:
            if change.what not in ("pinned", "unpinned") or change.name in decided:
                continue
            decided.add(change.name)
            if change.what == "pinned" and change.name in current:
                yield Pin(change.name, current[change.name], now, reason=change.why)


def _rebuilt(
    data: bytes, path: str, certain: Mapping[str, object], likely: Mapping[str, object]
) -> Publication:
    """Return a publication with the `certain` values, and those others that are readable."""
    value = {"version": publication_format.VERSION, "note": REBUILT, **likely, **certain}
    record = Publication.parse(json.dumps(value).encode(), path)
    readable = salvage_fields(data, (*_OPTIONAL, *likely))
    for key, found in readable.items():
        if key == "reference":
            continue  # the caller has checked its value
        try:
            record = Publication.parse(json.dumps(value | {key: found}).encode(), path)
        except InvalidRecord:
            continue
        value[key] = found
    return record


def _readable_entries(repository: Repository) -> Iterator[ScheduledRemoval]:
    for path in (layout.REMOVE_SCHEDULE, *schedule_files(repository)):
        for raw in salvage_entries(read_damaged(repository, path) or b"", "entries"):
            document = json.dumps({"version": schedule_format.VERSION, "entries": [raw]}).encode()
            try:
                [entry] = RemoveSchedule.parse(document, path).entries
                entry.parse_manifest()
            except (InvalidRecord, InvalidManifest):
                continue
            if layout.is_public_name(entry.name):
                yield entry


def _readable_pins(data: bytes) -> Iterator[Pin]:
    for raw in salvage_entries(data, "pins"):
        document = json.dumps({"version": pins_format.VERSION, "pins": [raw]}).encode()
        try:
            yield from Pins.parse(document, layout.PINS).pins
        except InvalidRecord:
            continue


def _retired_entries(repository: Repository, now: datetime) -> Iterator[ScheduledRemoval]:
    """Yield entries for all retired images under each name in the records of their users."""
    for shard in repository.children(layout.RETIRED):
        for child in repository.children(f"{layout.RETIRED}/{shard}"):
            directory = f"{layout.RETIRED}/{shard}/{child}"
            found = read_retired(repository, directory)
            if found is not None:
                yield from _entries_of(repository, directory, *found, now)


def _entries_of(
    repository: Repository,
    directory: str,
    digest: str,
    manifest: Manifest,
    data: bytes,
    now: datetime,
) -> Iterator[ScheduledRemoval]:
    path = f"{directory}/{layout.PUBLICATION_FILE}"
    record = salvage_fields(read_damaged(repository, path) or b"", ("name", "graceSeconds"))
    names = _users(repository, manifest.image_id, digest)
    own_name = record.get("name")
    if isinstance(own_name, str):
        names.add(own_name)
    grace = _grace(record.get("graceSeconds"))
    for name in sorted(filter(layout.is_public_name, names)):
        yield ScheduledRemoval(
            name=name,
            reference=reference_of(repository, path, name),
            manifest_digest=digest,
            image_id=manifest.image_id,
            manifest=JsonObject.parse(data),
            reason=Reason.TAG_MOVED,
            scheduled_at=now,
            not_before=later(now, grace),
        )


def _entries_of_published(
    repository: Repository, inventory: Inventory, now: datetime
) -> Iterator[ScheduledRemoval]:
    """Yield entries for images that are scheduled, and still published under their name.

    A file of the schedule has at least one entry. If one name only uses the manifest, the entry is
    about that name.
    """
    users: dict[str, list[LiveImage]] = {}
    for image in inventory.images:
        if image.name in inventory.names:
            users.setdefault(layout.retired_schedule(image.manifest_digest), []).append(image)
    for path in schedule_files(repository):
        directory = path.rpartition("/")[0]
        images = users.get(path, [])
        if len(images) != 1 or read_retired(repository, directory) is not None:
            continue
        [image] = images
        record = salvage_fields(
            read_damaged(repository, layout.publication_file(image.name)) or b"", ("graceSeconds",)
        )
        data = read_damaged(repository, layout.manifest_file(image.name)) or b"{}"
        yield ScheduledRemoval(
            name=image.name,
            reference=image.reference or image.name,
            manifest_digest=image.manifest_digest,
            image_id=image.manifest.image_id,
            manifest=JsonObject.parse(data),
            reason=Reason.REMOVED,
            scheduled_at=now,
            not_before=later(now, _grace(record.get("graceSeconds"))),
        )


def _grace(seconds: object) -> timedelta:
    if isinstance(seconds, int) and 0 <= seconds <= _LONGEST_GRACE.total_seconds():
        return timedelta(seconds=seconds)
    return DEFAULT_GRACE


def _users(repository: Repository, image_id: str, digest: str) -> set[str]:
    """Return the recorded names that use the image with this manifest."""
    path = layout.image_users(image_id)
    try:
        users = ImageUsers.parse(read_damaged(repository, path) or b"", path).users
    except InvalidRecord:
        return set()
    return {name for name, user_digest in users if user_digest == digest}
