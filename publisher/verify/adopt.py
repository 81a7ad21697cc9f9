"""Take over a repository that DUCC filled: the use case behind `publisher adopt`.

Layers and flat images stay in place and are used; only manifests and configs are downloaded. All
records, and links to layers by chain ID, are written in one transaction. A later run adopts images
for which this failed, such as those whose registry was unavailable.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from datetime import datetime

from publisher.errors import InvalidManifest, PublisherError
from publisher.lazy import dataclass
from publisher.oci.config import parse_config
from publisher.oci.image import PlatformImage
from publisher.oci.manifest import Manifest, parse_published_manifest
from publisher.oci.reference import parse_reference
from publisher.repository import Repository, Transaction
from publisher.repository.damaged import read_damaged
from publisher.repository.reading import (
    Usage,
    current_manifest,
    load_schedule,
)
from publisher.repository.records import RecordSet
from publisher.repository.schedule_files import schedule_files
from publisher.sources import ImageNotFound
from publisher.sources.image import fetch_images
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.publication import Publication
from publisher.tree.schedule import (
    DEFAULT_GRACE,
    RemoveSchedule,
    ScheduleSummary,
    is_ducc_schedule,
    parse_ducc_schedule,
    parse_summary,
)
from publisher.tree.users import ImageUsers


class AdoptionStatus(enum.StrEnum):
    """The result of the adoption for one image."""

    ADOPTED = "adopted"
    MOVED = "moved"
    KEPT = "kept"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class Adoption:
    """The result for one published image, and the reason."""

    name: str
    status: AdoptionStatus
    why: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The result of an adoption, or of its dry run. `records` counts the files that are written."""

    images: tuple[Adoption, ...]
    records: int
    layers_without_index: int


@dataclass(slots=True)
class _Plan:
    """The records to write, and the result for each image."""

    records: RecordSet
    images: list[Adoption] = field(default_factory=list)


def adopt(
    repository: Repository,
    sources: Sources,
    now: Callable[[], datetime],
    *,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda name: None,
) -> Report:
    """Write the records that this publisher needs in addition to those of DUCC.

    For an image whose tag still names the published image, the registry's exact manifest, the
    config and a publication are written. An image whose tag has moved is left to the next ingest.

    Args:
        repository: Opened for writing, unless for a dry run.
        sources: Where the images come from.
        now: The current time.
        dry_run: Only plan; changes nothing and takes no lock.
        progress: Called with the name of each image that is looked up.

    Raises:
        InvalidRecord: A record is unreadable. Nothing is changed.
        PublisherError: DUCC's remove schedule lists images that it has not collected. Nothing is
            changed.
    """
    found = _look_up(repository, sources, now, progress)
    if dry_run:
        plan = _plan(repository, found)
        return _report(repository, plan)
    with repository.transaction("adoption") as transaction, transaction.exclusive():
        plan = _plan(repository, found)
        report = _report(repository, plan)
        _fill(transaction, plan)
        transaction.commit()
    return report


def _look_up(
    repository: Repository,
    sources: Sources,
    now: Callable[[], datetime],
    progress: Callable[[str], None],
) -> dict[str, tuple[PlatformImage, Publication] | str]:
    """Return for each image without a publication the image at its registry, or the error's text.

    An empty text means that the tag has moved.
    """
    found: dict[str, tuple[PlatformImage, Publication] | str] = {}
    for name in repository.names():
        if repository.exists(layout.publication_file(name)):
            continue
        progress(name)
        data = read_damaged(repository, layout.manifest_file(name))
        if data is None:
            continue
        try:
            found[name] = _ask(repository, sources, name, parse_published_manifest(data), now())
        except (PublisherError, OSError) as error:
            found[name] = str(error)
    return found


def _ask(
    repository: Repository, sources: Sources, name: str, manifest: Manifest, now: datetime
) -> tuple[PlatformImage, Publication] | str:
    reference = parse_reference(name)
    source = sources.open(reference)
    digest = source.resolve()
    # An index may list several platforms; the config contains the one of this image.
    try:
        config = parse_config(source.fetch(manifest.config), manifest.image_id)
    except ImageNotFound:
        return ""  # the tag names another image
    [image] = fetch_images(source, [config.platform], digest)
    if image.manifest.image_id != manifest.image_id or [
        layer.digest for layer in image.manifest.layers
    ] != [layer.digest for layer in manifest.layers]:
        return ""
    linked = repository.link_text(name) is not None
    return image, Publication(
        name=name,
        reference=str(reference),
        source_digest=digest,
        manifest_digest=image.document.digest,
        image_id=manifest.image_id,
        platform=str(image.config.platform.normalized()),
        outputs=("flat", "layers") if linked else ("layers",),
        published_at=now,
        note="adopted from DUCC",
        grace_seconds=int(DEFAULT_GRACE.total_seconds()),
    )


def _plan(
    repository: Repository, found: Mapping[str, tuple[PlatformImage, Publication] | str]
) -> _Plan:
    """Return the files to write for the current state; called under the lock unless dry_run."""
    plan = _Plan(RecordSet(repository))
    _convert_schedule(repository, plan.records)
    adopted: list[PlatformImage] = []
    for name in repository.names():
        if repository.exists(layout.publication_file(name)):
            plan.images.append(Adoption(name, AdoptionStatus.COMPLETE, "it has all its records"))
            continue
        answer = found.get(name, "it was concurrently published")
        if isinstance(answer, str):
            status = AdoptionStatus.KEPT if answer else AdoptionStatus.MOVED
            why = answer or "its tag has moved; the next ingest follows it"
            plan.images.append(Adoption(name, status, why))
            continue
        image, publication = answer
        plan.images.append(Adoption(name, AdoptionStatus.ADOPTED, publication.manifest_digest))
        plan.records.set_file(layout.manifest_file(name), image.document.data)
        plan.records.set_file(layout.config_file(name), image.config_document.data)
        plan.records.set_publication(publication)
        adopted.append(image)
    _record_users(repository, plan.records, found)
    for image in adopted:
        layers, diff_ids = [each.digest for each in image.manifest.layers], image.config.diff_ids
        is_complete = all(repository.exists(layout.layer_directory(digest)) for digest in layers)
        if is_complete and len(layers) == len(diff_ids):
            plan.records.add_chains(layers, diff_ids)
    return plan


def _convert_schedule(repository: Repository, records: RecordSet) -> None:
    """Replace DUCC's schedule, a list of manifests without names or times, if it is empty."""
    data = read_damaged(repository, layout.REMOVE_SCHEDULE)
    if data is None:
        return
    if not is_ducc_schedule(data):
        parse_summary(data, layout.REMOVE_SCHEDULE)
        return
    listed = parse_ducc_schedule(data, layout.REMOVE_SCHEDULE)
    if listed:
        raise PublisherError(
            f"cannot adopt {layout.REMOVE_SCHEDULE}",
            why=f"DUCC has {len(listed)} images in it that it has not collected; they have neither "
            "names nor times",
            hint="let it finish first: cvmfs_ducc garbage-collection",
        )
    records.set_file(layout.REMOVE_SCHEDULE, ScheduleSummary(_latest(repository)).to_bytes())


def _latest(repository: Repository) -> datetime | None:
    """Return the time of the latest scheduling; None if no image is scheduled."""
    files = {path: read_damaged(repository, path) for path in schedule_files(repository)}
    return max(
        (
            entry.scheduled_at
            for path, data in files.items()
            for entry in RemoveSchedule.parse(data or b"", path).entries
        ),
        default=None,
    )


def _record_users(
    repository: Repository,
    records: RecordSet,
    found: Mapping[str, tuple[PlatformImage, Publication] | str],
) -> None:
    """Record the names that use each image, and the images that use each layer.

    Existing entries stay.
    """
    usage = _count(repository)
    for image_id, users in usage.images.items():
        known = records.users(image_id) or ImageUsers()
        exact = {(name, _digest_after(name, digest, found)) for name, digest in users}
        stale = {user for user in users if user not in exact}
        records.set_users(image_id, replace(known, users=(known.users | exact) - stale))
    for digest, images in usage.layers.items():
        if not repository.exists(layout.layer_directory(digest)):
            continue  # verify reports the missing layer, and can fetch it
        origin = records.origin(digest) or Origin()
        for image_id in images:
            origin = origin.with_image(image_id)
        records.set_origin(digest, origin)


def _count(repository: Repository) -> Usage:
    """Count the uses in all manifests. A schedule of DUCC is empty here."""
    usage = Usage()
    for name in repository.names():
        found = current_manifest(repository, name)
        if found is not None:
            usage.add(name, found.digest, found.parse())
    data = read_damaged(repository, layout.REMOVE_SCHEDULE)
    if data is None or not is_ducc_schedule(data):
        for entry in load_schedule(repository).entries:
            usage.add(entry.name, entry.manifest_digest, entry.parse_manifest())
    return usage


def _digest_after(
    name: str, digest: str, found: Mapping[str, tuple[PlatformImage, Publication] | str]
) -> str:
    """Return the digest of the manifest after the adoption."""
    answer = found.get(name, "")
    return digest if isinstance(answer, str) else answer[1].manifest_digest


def _fill(transaction: Transaction, plan: _Plan) -> None:
    plan.records.write(transaction)
    for image in plan.images:
        if image.status is AdoptionStatus.ADOPTED:
            transaction.record(image.name, "adopted", image.why)


def _report(repository: Repository, plan: _Plan) -> Report:
    missing = sum(1 for digest in _layers(repository) if _lacks_index(repository, digest))
    return Report(tuple(plan.images), plan.records.changes, missing)


def _layers(repository: Repository) -> Iterator[str]:
    seen = set()
    for name in repository.names():
        data = read_damaged(repository, layout.manifest_file(name))
        try:
            manifest = parse_published_manifest(data or b"")
        except InvalidManifest:
            continue
        for layer in manifest.layers:
            if layer.digest not in seen:
                seen.add(layer.digest)
                yield layer.digest


def _lacks_index(repository: Repository, digest: str) -> bool:
    is_published = repository.exists(layout.layer_directory(digest))
    return is_published and not repository.exists(layout.layer_index(digest))
