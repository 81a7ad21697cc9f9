"""Which images there are, and whether the metadata of each is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from publisher.entry import EntryType
from publisher.errors import InvalidManifest
from publisher.oci.config import ImageConfig, parse_config
from publisher.oci.digest import digest_of
from publisher.oci.manifest import Manifest, parse_published_manifest
from publisher.repository import Repository
from publisher.tree import layout, pins, settings
from publisher.tree import publication as publication_format
from publisher.tree import schedule as schedule_format
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import RemoveSchedule, ScheduledRemoval
from publisher.verify.findings import Finding, Kind, Remedy, Severity

_OWN_DIRECTORIES = (layout.STATE, layout.RETIRED, layout.IMAGES)
_OWN_FILES = (layout.REMOVE_SCHEDULE, layout.PINS, layout.REPOSITORY_SETTINGS)
_IMAGE_FILES = (layout.MANIFEST_FILE, layout.CONFIG_FILE, layout.PUBLICATION_FILE)
_KNOWN_FILES = (*_IMAGE_FILES, layout.THIN_FILE)
_AGAIN = "publish it again with `publisher ingest`"


@dataclass(frozen=True, slots=True)
class LiveImage:
    """A manifest that somebody may still use: published under `name`, or scheduled for removal.

    `reference` is where it came from ("" where nobody wrote it down). `flat` says whether it should
    have a flat image, `linked` whether `name` should lead there.
    """

    name: str
    manifest_digest: str
    manifest: Manifest
    config: ImageConfig | None
    reference: str = ""
    platform: str = ""
    flat: bool = True
    linked: bool = True


@dataclass(slots=True)
class Inventory:
    """All images, and what was found out about their metadata.

    It is `certain` unless something could not be read that may name images: then nothing can be
    called superfluous.
    """

    images: list[LiveImage] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    schedule: tuple[ScheduledRemoval, ...] = ()
    certain: bool = True

    def add(
        self,
        severity: Severity,
        kind: Kind,
        path: str,
        what: str,
        remedy: Remedy = Remedy.NONE,
        how: str = "",
        image: str = "",
    ) -> None:
        """Note one finding."""
        self.findings.append(Finding(severity, kind, path, what, remedy, how, image))


def take_inventory(repository: Repository) -> Inventory:
    """Read the metadata of everything that is published or scheduled."""
    inventory = Inventory()
    for name in _metadata_directories(repository, inventory):
        _take_image(repository, inventory, name)
    _take_schedule(repository, inventory)
    for path, kind, version in (
        (layout.PINS, pins.Pins, pins.VERSION),
        (layout.REPOSITORY_SETTINGS, settings.RepositorySettings, settings.VERSION),
    ):
        data = read_record(repository, inventory, path)
        if data is not None:
            try:
                kind.parse(data, path)
            except InvalidRecord as error:
                _unreadable(inventory, path, data, version, error)
    return inventory


def read_record(repository: Repository, inventory: Inventory, path: str) -> bytes | None:
    """A metadata file's bytes; None, and a finding, where it is something that cannot be read."""
    try:
        return repository.read(path)
    except OSError as error:
        inventory.certain = False
        inventory.add(
            Severity.ERROR,
            Kind.RECORD_DAMAGED,
            path,
            f"it cannot be read: {error.strerror}",
            how="see what stands there, and move it away or make it readable",
        )
        return None


def is_of_the_future(data: bytes, known: int) -> bool:
    """Whether a record was written in a later version of its format than we know."""
    try:
        version = json.loads(data)["version"]
    except (ValueError, KeyError, TypeError, IndexError):
        return False
    return isinstance(version, int) and version > known


def _metadata_directories(repository: Repository, inventory: Inventory) -> Iterator[str]:
    """The names below `.metadata` that have an image's metadata, or what is left of it."""
    top = layout.METADATA
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        children = repository.children(directory)
        if directory != top and any(child in _IMAGE_FILES for child in children):
            yield directory.removeprefix(f"{top}/")
        for child in children:
            path = f"{directory}/{child}"
            if repository.kind(path) is not EntryType.DIRECTORY:
                if path not in _OWN_FILES and (directory == top or child not in _KNOWN_FILES):
                    _foreign(inventory, path)
            elif directory == top and child.startswith(".") and child != layout.MULTIARCH:
                if path not in _OWN_DIRECTORIES:
                    _foreign(inventory, path)
            else:
                waiting.append(path)


def _foreign(inventory: Inventory, path: str) -> None:
    inventory.add(
        Severity.NOTE,
        Kind.FOREIGN,
        path,
        "nothing that this publisher knows",
        how="it is left alone",
    )


def _take_image(repository: Repository, inventory: Inventory, name: str) -> None:
    inventory.names.add(name)
    found = _Metadata.read(repository, inventory, name)
    path = layout.manifest_file(name)
    if found.manifest_data is None:
        inventory.certain = False
        inventory.add(
            Severity.ERROR,
            Kind.MANIFEST_MISSING,
            path,
            "the manifest is not there, only other metadata of the image",
            Remedy.REFETCH,
            _AGAIN,
            name,
        )
        return
    digest = digest_of(found.manifest_data)
    if found.publication is not None:
        expected = found.publication.manifest_digest
        digest = digest_of(found.manifest_data, expected.partition(":")[0])
        if digest != expected:
            inventory.certain = False
            inventory.add(
                Severity.ERROR,
                Kind.MANIFEST_DAMAGED,
                path,
                f"its digest is {digest}, and should be {expected}",
                Remedy.REFETCH,
                _AGAIN,
                name,
            )
            return
    try:
        manifest = parse_published_manifest(found.manifest_data)
    except InvalidManifest as error:
        inventory.certain = False
        inventory.add(
            Severity.ERROR,
            Kind.MANIFEST_DAMAGED,
            path,
            error.why or str(error),
            Remedy.REFETCH,
            _AGAIN,
            name,
        )
        return
    publication = found.publication
    if publication is not None:
        flat = "flat" in publication.outputs
    else:  # another tool's image has one; of what we cannot read, the tree itself has to tell
        flat = not found.unreadable or repository.link_text(name) is not None
    if publication is not None and (publication.name, publication.image_id) != (
        name,
        manifest.image_id,
    ):
        inventory.add(
            Severity.ERROR,
            Kind.PUBLICATION_DAMAGED,
            layout.publication_file(name),
            f"it is about {publication.name} with image ID {publication.image_id}, "
            f"the manifest has {manifest.image_id}",
            Remedy.REFETCH,
            _AGAIN,
            name,
        )
    inventory.images.append(
        LiveImage(
            name,
            digest,
            manifest,
            _config(inventory, found, manifest, name),
            publication.reference if publication else "",
            publication.platform if publication else "",
            flat=flat,
            linked=flat,
        )
    )


@dataclass(frozen=True, slots=True)
class _Metadata:
    manifest_data: bytes | None
    config_data: bytes | None
    publication: Publication | None
    other_tool: bool
    unreadable: bool

    @classmethod
    def read(cls, repository: Repository, inventory: Inventory, name: str) -> _Metadata:
        manifest_data = read_record(repository, inventory, layout.manifest_file(name))
        other_tool = manifest_data is not None and _is_reserialised(manifest_data)
        path = layout.publication_file(name)
        data = read_record(repository, inventory, path)
        publication = None
        if data is not None:
            try:
                publication = Publication.parse(data, path)
            except InvalidRecord as error:
                _unreadable(
                    inventory,
                    path,
                    data,
                    publication_format.VERSION,
                    error,
                    kind=Kind.PUBLICATION_DAMAGED,
                    image=name,
                    remedy=Remedy.REFETCH,
                )
        elif other_tool:
            inventory.add(
                Severity.NOTE,
                Kind.OTHER_TOOL,
                layout.manifest_file(name),
                "the manifest is written anew as DUCC does it: its digest is not the registry's, "
                "and neither config nor publication are recorded",
                how="the next ingest of the image adds what is missing",
                image=name,
            )
        elif manifest_data is not None:
            inventory.add(
                Severity.WARNING,
                Kind.PUBLICATION_MISSING,
                path,
                "there is no record of where the image came from",
                Remedy.REFETCH,
                _AGAIN,
                name,
            )
        config_data = read_record(repository, inventory, layout.config_file(name))
        unreadable = data is not None and publication is None
        return cls(manifest_data, config_data, publication, other_tool, unreadable)


def _is_reserialised(data: bytes) -> bool:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "Layers" in value and "layers" not in value


def _config(
    inventory: Inventory, found: _Metadata, manifest: Manifest, name: str
) -> ImageConfig | None:
    path = layout.config_file(name)
    if found.config_data is None:
        if not (found.other_tool and found.publication is None):
            inventory.add(
                Severity.ERROR,
                Kind.CONFIG_MISSING,
                path,
                "the image's config is not there",
                Remedy.REFETCH,
                _AGAIN,
                name,
            )
        return None
    digest = digest_of(found.config_data, manifest.image_id.partition(":")[0])
    if digest != manifest.image_id:
        inventory.add(
            Severity.ERROR,
            Kind.CONFIG_DAMAGED,
            path,
            f"its digest is {digest}, and should be {manifest.image_id}",
            Remedy.REFETCH,
            _AGAIN,
            name,
        )
        return None
    try:
        return parse_config(found.config_data, manifest.image_id)
    except InvalidManifest as error:
        inventory.add(Severity.ERROR, Kind.CONFIG_DAMAGED, path, error.why, image=name)
        return None


def _take_schedule(repository: Repository, inventory: Inventory) -> None:
    path = layout.REMOVE_SCHEDULE
    data = read_record(repository, inventory, path)
    if data is None:
        return
    others = _schedule_of_other_tool(data)
    if others is not None:
        inventory.add(
            Severity.NOTE,
            Kind.OTHER_TOOL,
            path,
            f"a list of {len(others)} manifests without times, as DUCC writes it",
            how="publisher adopt" if not others else "let DUCC collect them, then publisher adopt",
        )
        for raw in others:
            manifest = parse_published_manifest(json.dumps(raw).encode())
            inventory.images.append(LiveImage("", "", manifest, None, flat=False, linked=False))
        return
    try:
        schedule = RemoveSchedule.parse(data, path)
        manifests = [entry.parse_manifest() for entry in schedule.entries]
    except (InvalidRecord, InvalidManifest) as error:
        inventory.certain = False
        _unreadable(inventory, path, data, schedule_format.VERSION, error)
        return
    inventory.schedule = schedule.entries
    current = {(image.name, image.manifest_digest) for image in inventory.images}
    for entry, manifest in zip(schedule.entries, manifests, strict=True):
        if (entry.name, entry.manifest_digest) not in current:
            inventory.images.append(_retired(repository, inventory, entry, manifest))


def _retired(
    repository: Repository, inventory: Inventory, entry: ScheduledRemoval, manifest: Manifest
) -> LiveImage:
    """An image whose name has moved on; its metadata went to a place of its own."""
    directory = layout.retired_directory(entry.manifest_digest)
    config = None
    platform = ""
    outputs: tuple[str, ...] = ("flat",)
    algorithm = entry.manifest_digest.partition(":")[0]
    data = read_record(repository, inventory, f"{directory}/{layout.MANIFEST_FILE}")
    if data is None or digest_of(data, algorithm) != entry.manifest_digest:
        inventory.add(
            Severity.WARNING,
            Kind.RETIRED_MISSING,
            f"{directory}/{layout.MANIFEST_FILE}",
            "the scheduled manifest is not there as it was; the schedule itself has what it says",
            Remedy.NONE,
            "it goes when its time comes",
            entry.name,
        )
    path = f"{directory}/{layout.PUBLICATION_FILE}"
    data = read_record(repository, inventory, path)
    if data is not None:
        try:
            publication = Publication.parse(data, path)
            platform, outputs = publication.platform, publication.outputs
        except InvalidRecord as error:
            _unreadable(inventory, path, data, publication_format.VERSION, error)
    data = read_record(repository, inventory, f"{directory}/{layout.CONFIG_FILE}")
    if (
        data is not None
        and digest_of(data, manifest.image_id.partition(":")[0]) == manifest.image_id
    ):
        config = parse_config(data, manifest.image_id)
    return LiveImage(
        entry.name,
        entry.manifest_digest,
        manifest,
        config,
        entry.reference,
        platform,
        flat="flat" in outputs,
        linked=False,
    )


def _schedule_of_other_tool(data: bytes) -> list[dict[str, Any]] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(raw, dict) for raw in value):
        return None
    try:
        for raw in value:
            parse_published_manifest(json.dumps(raw).encode())
    except InvalidManifest:
        return None
    return value


def _unreadable(
    inventory: Inventory,
    path: str,
    data: bytes,
    known: int,
    error: InvalidRecord | InvalidManifest,
    *,
    kind: Kind = Kind.RECORD_DAMAGED,
    image: str = "",
    remedy: Remedy = Remedy.NONE,
) -> None:
    if is_of_the_future(data, known):
        inventory.add(
            Severity.WARNING, Kind.FUTURE_VERSION, path, error.why, how=error.hint, image=image
        )
        return
    inventory.add(
        Severity.ERROR,
        kind,
        path,
        error.why or str(error),
        remedy,
        _AGAIN
        if remedy is Remedy.REFETCH
        else "restore it from a backup; nothing is removed meanwhile",
        image,
    )
