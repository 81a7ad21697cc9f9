"""Decrease reference counts image by image, and determine the content that has no users left.

Only the records of the released images are read, so that the cost does not depend on the size of
the repository. The changes are made in a record set; nothing is written here.
"""

from __future__ import annotations

from publisher.errors import InvalidManifest, PublisherError
from publisher.layers.errors import LayerError
from publisher.layers.index import read_header
from publisher.lazy import dataclass
from publisher.oci.manifest import Manifest
from publisher.removal.release import Facts, Release, decide
from publisher.repository.reading import Usage, count_usage
from publisher.repository.records import RecordSet
from publisher.runtimes import squashfs
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import ScheduledRemoval
from publisher.tree.thin_image import ThinRecord
from publisher.tree.users import ImageUsers


class UncertainState(PublisherError):
    """The records of an image contradict each other, so the image is kept.

    `name` and `manifest_digest` are those of the image; `path` is the record that is not up to
    date, relative to the repository, or "".
    """

    def __init__(
        self, entry: ScheduledRemoval, what: str, *, why: str, hint: str = "", path: str = ""
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.name = entry.name
        self.manifest_digest = entry.manifest_digest
        self.path = path


@dataclass(frozen=True, slots=True)
class Released:
    """An image that is removed, the number of layers removed with it, and the bytes that it frees.

    `thin` is the record of its thin image, if one was pushed.

    The bytes are those of all files of the layers (compressed bytes for a layer without an index).
    A flat image consists of links to layers, so its removal alone frees nothing; a squashfs file is
    counted.
    """

    entry: ScheduledRemoval
    layers: int
    flat: bool
    size: int
    thin: ThinRecord | None = None


UNCERTAIN_ERRORS = (UncertainState, InvalidRecord, InvalidManifest, LayerError, OSError)
"""The errors of `release` that concern one image, which is then kept."""


class ReferenceCounts:
    """The reference counts of a repository, from which images are released.

    Attributes:
        names: The names of the publications that are removed.
        unused: The IDs of images that no name uses any more. Podman's store has to remove them.
    """

    def __init__(self, records: RecordSet) -> None:
        self.records = records
        self.names: dict[str, Publication | None] = {}
        self.unused: list[str] = []
        self._usage: Usage | None = None
        self._released: set[tuple[str, str]] = set()

    def release(self, entry: ScheduledRemoval) -> Released:
        """Remove a scheduled image from the records.

        Raises one of UNCERTAIN_ERRORS, and changes nothing, if the records of the image are damaged
        or contradict each other.
        """
        if not layout.is_public_name(entry.name):
            raise UncertainState(
                entry, f"cannot collect {entry.name!r}", why="an image cannot have that name"
            )
        manifest = entry.parse_manifest()
        if manifest.image_id != entry.image_id:
            raise UncertainState(
                entry,
                f"cannot collect {entry.name}",
                why=f"its entry has image ID {entry.image_id}, its manifest {manifest.image_id}",
            )
        facts = self._facts(entry, manifest)
        release = decide(facts)
        is_current = self.records.is_published(entry.name, entry.manifest_digest)
        size = sum(self._layer_size(manifest, digest) for digest in release.layers)
        if release.flat and facts.users.squashfs is not None:
            size += facts.users.squashfs.size
        thin = self.records.thin_record(entry.name) if is_current else None
        self._apply(release, is_current)
        return Released(entry, len(release.layers), release.flat, size, thin)

    def _apply(self, release: Release, is_current: bool) -> None:
        entry, records = release.entry, self.records
        records.schedule.remove(*entry.key)
        self._released.add(entry.key)
        pins = records.pins.without(*entry.key)  # an expired pin
        if pins != records.pins:
            records.set_pins(pins)
        if is_current:
            self.names[entry.name] = records.readable_publication(entry.name)
            records.remove_link(entry.name, entry.image_id)
            records.remove(layout.image_metadata(entry.name))
        # It may lead to a retired image, if the file of the current one was never written.
        if is_current or not release.users.users:
            records.remove_squashfs_link(entry.name, entry.image_id)
        records.set_users(entry.image_id, release.users)
        if release.users.users:
            squashfs.remove_unrequested(records, entry.image_id)
        else:
            self.unused.append(entry.image_id)
        for digest, origin in release.origins.items():
            records.set_origin(digest, origin)

    def _facts(self, entry: ScheduledRemoval, manifest: Manifest) -> Facts:
        users = self._users_of(entry)
        siblings = {
            digest: self._manifest_of(entry, name, digest)
            for name, digest in sorted(users.users - {entry.key})
            if digest != entry.manifest_digest
        }
        origins = {}
        for layer in manifest.layers:
            origin = self._origin_of(entry, layer.digest)
            if origin is None:
                continue
            if entry.image_id not in origin.images:
                path = layout.layer_origin(layer.digest)
                raise _stale(entry, path, f"it lacks {entry.image_id}")
            origins[layer.digest] = origin
        return Facts(entry, manifest, users, tuple(siblings.values()), origins)

    def _users_of(self, entry: ScheduledRemoval) -> ImageUsers:
        users = self.records.users(entry.image_id)
        if users is not None and entry.key in users.users:
            return users
        # An image of another program has no such record: the users of all images are counted.
        if self._usage is None:
            self._usage = count_usage(self.records.repository)
        counted = frozenset(self._usage.images.get(entry.image_id, ()))
        return ImageUsers(counted - self._released)

    def _origin_of(self, entry: ScheduledRemoval, digest: str) -> Origin | None:
        """Return the layer's record; None if the layer is not published."""
        directory = layout.layer_directory(digest)
        if self.records.is_removed(directory):
            return None
        origin = self.records.origin(digest)
        if origin is None and self.records.repository.exists(directory):
            raise _stale(entry, layout.layer_origin(digest), "it is missing")
        return origin

    def _manifest_of(self, entry: ScheduledRemoval, name: str, digest: str) -> Manifest:
        """Return the manifest with which `name` uses the same image as `entry`."""
        other = self.records.schedule.find(name, digest)
        if other is not None:
            return other.parse_manifest()
        current = self.records.manifest(name)
        if current is None or current.digest != digest:
            path = layout.image_users(entry.image_id)
            raise _stale(entry, path, f"{name} does not use {digest}")
        return current.parse()

    def _layer_size(self, manifest: Manifest, digest: str) -> int:
        repository = self.records.repository
        if repository.exists(layout.layer_index(digest)):
            with repository.open_index(digest) as file:
                return read_header(file).stored_size
        return next(layer.size for layer in manifest.layers if layer.digest == digest)


def _stale(entry: ScheduledRemoval, path: str, why: str) -> UncertainState:
    return UncertainState(
        entry, f"{path} is not up to date", why=why, hint="publisher verify --repair", path=path
    )
