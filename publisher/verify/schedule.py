"""Check the remove schedule, and the metadata of retired images."""

from __future__ import annotations

from publisher.errors import InvalidManifest
from publisher.oci.config import ImageConfig, parse_config
from publisher.oci.digest import digest_like, digest_of
from publisher.oci.manifest import Manifest, parse_published_manifest
from publisher.repository import Repository
from publisher.repository.damaged import read_damaged
from publisher.repository.schedule_files import schedule_files
from publisher.tree import layout
from publisher.tree import publication as publication_format
from publisher.tree import schedule as schedule_format
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import (
    RemoveSchedule,
    ScheduledRemoval,
    is_ducc_schedule,
    parse_ducc_schedule,
    parse_summary,
)
from publisher.verify.findings import Kind, Remedy
from publisher.verify.inventory import Inventory, LiveImage, read_record
from publisher.verify.record_versions import add_newer_version, is_newer


def add_schedule(repository: Repository, inventory: Inventory) -> None:
    """Add the scheduled images and the findings about the schedule to the inventory."""
    entries: list[ScheduledRemoval] = []
    current = {(image.name, image.manifest_digest) for image in inventory.images}
    for path in (layout.REMOVE_SCHEDULE, *schedule_files(repository)):
        data = read_record(repository, inventory, path)
        if data is None or (
            path == layout.REMOVE_SCHEDULE and _add_schedule_of_ducc(inventory, data)
        ):
            continue
        try:
            listed = [(entry, entry.parse_manifest()) for entry in _parse(data, path)]
        except (InvalidRecord, InvalidManifest) as error:
            _add_damage(repository, inventory, path, data, error)
            continue
        for entry, manifest in listed:
            entries.append(entry)
            if entry.key not in current:
                inventory.images.append(_retired_image(repository, inventory, entry, manifest))
    inventory.schedule = tuple(entries)


def _parse(data: bytes, path: str) -> tuple[ScheduledRemoval, ...]:
    """Return the entries in one file of the schedule."""
    if path != layout.REMOVE_SCHEDULE:
        return RemoveSchedule.parse(data, path).entries
    found = parse_summary(data, path)
    return found.entries if isinstance(found, RemoveSchedule) else ()


def _add_damage(
    repository: Repository,
    inventory: Inventory,
    path: str,
    data: bytes,
    error: InvalidRecord | InvalidManifest,
) -> None:
    inventory.certain = False
    known = (
        schedule_format.SUMMARY_VERSION
        if path == layout.REMOVE_SCHEDULE
        else schedule_format.VERSION
    )
    if isinstance(error, InvalidRecord) and is_newer(data, known):
        add_newer_version(inventory, path, error)
    else:
        inventory.error(
            Kind.RECORD_DAMAGED,
            path,
            f"{error.why or error}; what concerns it is not published or removed until it is "
            "repaired",
            Remedy.DERIVE,
        )


def read_retired(repository: Repository, directory: str) -> tuple[str, Manifest, bytes] | None:
    """Return digest, manifest and bytes of a retired image; None if the digest is wrong.

    The name of the directory is the digest, with which the bytes are compared.
    """
    name = directory.rpartition("/")[2]
    algorithm = {64: "sha256", 128: "sha512"}.get(len(name))
    if algorithm is None:
        return None
    try:
        data = read_damaged(repository, f"{directory}/{layout.MANIFEST_FILE}")
        if data is None or digest_of(data, algorithm) != f"{algorithm}:{name}":
            return None
        return f"{algorithm}:{name}", parse_published_manifest(data), data
    except (OSError, InvalidManifest):
        return None


def _add_schedule_of_ducc(inventory: Inventory, data: bytes) -> bool:
    """Add the images of DUCC's schedule, a list of manifests; return False for another file."""
    listed = _list_of_manifests(data)
    if listed is None:
        return False
    what = f"a list of {len(listed)} manifests without times, as DUCC writes it"
    how = "publisher adopt" if not listed else "let DUCC collect them, then: publisher adopt"
    if any(image.reference for image in inventory.images):  # the repository has been adopted
        what += "; nothing is published or removed until it is adopted"
        inventory.warning(Kind.OTHER_TOOL, layout.REMOVE_SCHEDULE, what, how=how)
    else:
        inventory.note(Kind.OTHER_TOOL, layout.REMOVE_SCHEDULE, what, how=how)
    inventory.unnamed = listed
    return True


def _list_of_manifests(data: bytes) -> tuple[Manifest, ...] | None:
    if not is_ducc_schedule(data):
        return None
    try:
        return tuple(
            parse_published_manifest(each)
            for each in parse_ducc_schedule(data, layout.REMOVE_SCHEDULE)
        )
    except (InvalidRecord, InvalidManifest):
        return None


def _retired_image(
    repository: Repository, inventory: Inventory, entry: ScheduledRemoval, manifest: Manifest
) -> LiveImage:
    """Return the retired image, whose metadata is in a directory of its own."""
    directory = layout.retired_directory(entry.manifest_digest)
    _check_bytes(
        repository,
        inventory,
        entry,
        f"{directory}/{layout.MANIFEST_FILE}",
        entry.manifest_digest,
    )
    publication, readable = _retired_publication(repository, inventory, entry)
    config: ImageConfig | None = None
    if publication is not None:
        data = _check_bytes(
            repository,
            inventory,
            entry,
            f"{directory}/{layout.CONFIG_FILE}",
            entry.image_id,
        )
        try:
            config = parse_config(data, manifest.image_id) if data is not None else None
        except InvalidManifest:
            config = None  # published by a release that did not check it
    outputs = publication.outputs if publication is not None else ("flat",)
    flat_exists = repository.exists(layout.flat_image(manifest.image_id))
    return LiveImage(
        entry.name,
        entry.manifest_digest,
        manifest,
        config,
        entry.reference,
        publication.platform if publication is not None else "",
        flat="flat" in outputs and (readable or flat_exists),
        linked=False,
        squashfs="squashfs" in outputs,
        published=False,
    )


def _retired_publication(
    repository: Repository, inventory: Inventory, entry: ScheduledRemoval
) -> tuple[Publication | None, bool]:
    """Return the record, and whether the outputs of the image are known."""
    path = f"{layout.retired_directory(entry.manifest_digest)}/{layout.PUBLICATION_FILE}"
    data = read_record(repository, inventory, path)
    if data is None:
        return None, True  # DUCC published it
    try:
        return Publication.parse(data, path), True
    except InvalidRecord as error:
        if is_newer(data, publication_format.VERSION):
            add_newer_version(inventory, path, error, image=entry.name)
        else:
            inventory.warning(
                Kind.RETIRED_DAMAGED,
                path,
                f"{error.why}; the scheduled image cannot be restored",
                Remedy.DERIVE,
                image=entry.name,
            )
        return None, False


def _check_bytes(
    repository: Repository, inventory: Inventory, entry: ScheduledRemoval, path: str, digest: str
) -> bytes | None:
    """Return the file's bytes if they have this digest; else None, with a finding."""
    data = read_record(repository, inventory, path)
    if data is None:
        inventory.warning(
            Kind.RETIRED_MISSING,
            path,
            "it is missing; the scheduled image cannot be restored",
            Remedy.REFETCH,
            image=entry.name,
        )
        return None
    actual = digest_like(data, digest)
    if actual == digest:
        return data
    inventory.warning(
        Kind.RETIRED_DAMAGED,
        path,
        f"its digest is {actual}, expected {digest}; the scheduled image cannot be restored",
        Remedy.REFETCH,
        image=entry.name,
    )
    return None
