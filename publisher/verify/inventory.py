"""The inventory of a repository: which images are published or scheduled, and their metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, replace

from publisher.entry import EntryType
from publisher.errors import explain, is_resource_limit
from publisher.lazy import dataclass
from publisher.oci.config import ImageConfig
from publisher.oci.manifest import Manifest
from publisher.repository import Repository
from publisher.repository.damaged import read_damaged
from publisher.repository.records import IMAGE_FILES
from publisher.tree import layout
from publisher.tree.record import InvalidRecord, Unreadable
from publisher.tree.schedule import ScheduledRemoval
from publisher.tree.users import ImageUsers
from publisher.verify.findings import Finding, Kind, Remedy, Severity

_OWN_DIRECTORIES = (
    *(layout.STATE, layout.RETIRED, layout.IMAGES),
    *(layout.CHAINS, layout.HOT_FILES, layout.PUBLISHERS),
)
_OWN_FILES = (layout.REMOVE_SCHEDULE, layout.PINS, layout.REPOSITORY_SETTINGS)
_KNOWN_FILES = (*IMAGE_FILES, layout.THIN_FILE, *layout.SBOM_FILES)


@dataclass(frozen=True, slots=True)
class LiveImage:
    """A manifest that is in use: published under `name`, or scheduled for removal.

    Attributes:
        name: The public name.
        manifest_digest: The digest of the published or retired manifest.
        reference: The image reference; "" if no record has it.
        flat: Whether the image should have a flat image.
        linked: Whether `name` should be a link to the flat image.
        squashfs: Whether the image should have a squashfs file.
        sbom: Whether bills of materials should be beside the manifest.
        published: Whether the image is published under `name`, and not only scheduled.
    """

    name: str
    manifest_digest: str
    manifest: Manifest
    config: ImageConfig | None
    reference: str = ""
    platform: str = ""
    flat: bool = True
    linked: bool = True
    squashfs: bool = False
    sbom: bool = False
    published: bool = True


@dataclass(slots=True)
class Inventory:
    """All published and scheduled images, and the findings.

    Attributes:
        unnamed: The manifests in the remove schedule of DUCC. Their content is in use, but neither
            their names nor their exact bytes are known.
        names: The published names, including those whose metadata is unreadable.
        certain: False if a record that may name images or layers is unreadable. Then nothing
            is reported as an orphan.
        not_files: What is in the place of records that are not files, by path.
        users: The records of image IDs that are readable, after `check_images`.
    """

    images: list[LiveImage] = field(default_factory=list)
    unnamed: tuple[Manifest, ...] = ()
    names: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    schedule: tuple[ScheduledRemoval, ...] = ()
    certain: bool = True
    not_files: dict[str, str] = field(default_factory=dict)
    users: dict[str, ImageUsers] = field(default_factory=dict)

    @property
    def manifests(self) -> Iterator[Manifest]:
        """Every manifest that is in use, with or without a name."""
        yield from (image.manifest for image in self.images)
        yield from self.unnamed

    def error(
        self,
        kind: Kind,
        path: str,
        what: str,
        remedy: Remedy = Remedy.NONE,
        *,
        how: str = "",
        image: str = "",
    ) -> None:
        """Add a finding that affects an image."""
        self._add(Finding(Severity.ERROR, kind, path, what, remedy, how, image))

    def warning(
        self,
        kind: Kind,
        path: str,
        what: str,
        remedy: Remedy = Remedy.NONE,
        *,
        how: str = "",
        image: str = "",
    ) -> None:
        """Add a finding that affects no image."""
        self._add(Finding(Severity.WARNING, kind, path, what, remedy, how, image))

    def note(
        self,
        kind: Kind,
        path: str,
        what: str,
        remedy: Remedy = Remedy.NONE,
        *,
        how: str = "",
        image: str = "",
    ) -> None:
        """Add a finding about something that is sound."""
        self.findings.append(Finding(Severity.NOTE, kind, path, what, remedy, how, image))

    def _add(self, finding: Finding) -> None:
        found = self.not_files.get(finding.path, "")
        if found not in finding.what:
            finding = replace(finding, what=f"{found}: {finding.what}")
        self.findings.append(finding)

    def foreign(self, path: str) -> None:
        """Note a file or directory that this publisher did not make."""
        self.note(Kind.FOREIGN, path, "not made by this publisher; it is left alone")


def read_record(repository: Repository, inventory: Inventory, path: str) -> bytes | None:
    """Return a metadata file's bytes; None, with a finding, if it cannot be read."""
    try:
        data = read_damaged(repository, path)
    except (OSError, InvalidRecord) as error:
        if isinstance(error, OSError) and is_resource_limit(error):
            raise
        inventory.certain = False
        why, how = explain(error).why, explain(error).hint
        inventory.error(Kind.RECORD_DAMAGED, path, f"cannot be read: {why}", how=how)
        return None
    if isinstance(data, Unreadable):
        inventory.not_files[path] = data.why
    return data


def metadata_directories(repository: Repository, inventory: Inventory) -> Iterator[str]:
    """Yield the names of the images that have metadata files, or a part of them.

    Unknown files are noted in `inventory`.
    """
    top = layout.METADATA
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        children = repository.children(directory)
        if directory != top and any(child in IMAGE_FILES for child in children):
            yield directory.removeprefix(f"{top}/")
        for child in children:
            path = f"{directory}/{child}"
            is_directory = repository.kind(path) is EntryType.DIRECTORY
            if _is_foreign(directory, child, is_directory):
                inventory.foreign(path)
            elif is_directory and _may_hold_images(directory, child):
                waiting.append(path)


def _is_foreign(directory: str, child: str, is_directory: bool) -> bool:
    """Return whether this publisher did not make `child`, which lies below `.metadata`."""
    path = f"{directory}/{child}"
    if is_directory:
        return _is_hidden(directory, child) and path not in _OWN_DIRECTORIES
    at_top = directory == layout.METADATA
    return path not in _OWN_FILES and (at_top or child not in _KNOWN_FILES)


def _may_hold_images(directory: str, child: str) -> bool:
    return not _is_hidden(directory, child) and child not in IMAGE_FILES


def _is_hidden(directory: str, child: str) -> bool:
    """Return whether the directory is beside those of images."""
    return directory == layout.METADATA and layout.is_hidden(child)
