"""The repository's records, as they are and as they will be once what was released is gone.

Reading costs what the released images' own records cost, whatever the size of the repository. With
a transaction the outcome is written; without one it is only known, which is the dry run.
"""

from __future__ import annotations

from dataclasses import dataclass

from publisher.errors import InvalidManifest, PublisherError
from publisher.layers.errors import LayerError
from publisher.layers.index import read_header
from publisher.oci.manifest import Manifest, parse_published_manifest
from publisher.removal.release import Facts, Release, decide
from publisher.repository import Repository, Transaction
from publisher.repository.reading import (
    Usage,
    count_usage,
    current_manifest,
    load_origin,
    load_pins,
    load_schedule,
    load_thin_record,
    load_users,
)
from publisher.runtimes.podman import store as podman_store
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import RemoveSchedule, ScheduledRemoval
from publisher.tree.thin_image import ThinRecord
from publisher.tree.users import ImageUsers


class Doubt(PublisherError):
    """The records do not say for certain what an image uses, so it stays."""


@dataclass(frozen=True, slots=True)
class Released:
    """An image that goes, how many layers with it, and how many bytes are free then.

    `thin` is what was pushed as its thin image, if that is on record.

    The bytes are those of all files of the layers (compressed ones for a layer without an index,
    which another tool published). A flat image is links to layers, and frees nothing by itself.
    """

    entry: ScheduledRemoval
    layers: int
    flat: bool
    size: int
    thin: ThinRecord | None = None


DOUBTS = (Doubt, InvalidRecord, InvalidManifest, LayerError, OSError)
"""What may be raised about one image, which stays then; others are not concerned."""


class Books:
    """The records of a repository from which images are released, one after the other."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.schedule = self._schedule_before = load_schedule(repository)
        self.pins = self._pins_before = load_pins(repository)
        self._origins: dict[str, Origin] = {}
        self._users: dict[str, ImageUsers] = {}
        self._names: list[str] = []
        self._links: list[str] = []
        self._usage: Usage | None = None

    @property
    def size(self) -> int:
        """How many records and trees are concerned so far."""
        return len(self._origins) + len(self._users) + len(self._names)

    def release(self, entry: ScheduledRemoval) -> Released:
        """Let a scheduled image go. Raises one of DOUBTS, with nothing changed, when in doubt."""
        if not layout.is_public_name(entry.name):
            raise Doubt(f"cannot collect {entry.name!r}", why="that is no image's place")
        manifest = entry.parse_manifest()
        if manifest.image_id != entry.image_id:
            raise Doubt(
                f"cannot collect {entry.name}",
                why=f"its entry says {entry.image_id}, the manifest in it {manifest.image_id}",
            )
        facts = self._facts(entry, manifest)
        release = decide(facts)
        is_current = self._is_current(entry)
        size = sum(self._layer_size(manifest, digest) for digest in release.layers)
        self._note(release, is_current)
        thin = load_thin_record(self._repository, entry.name) if is_current else None
        return Released(entry, len(release.layers), release.flat, size, thin)

    def write(self, transaction: Transaction) -> None:
        """Put everything that changes into the transaction: links go before what they lead to."""
        unused = [image_id for image_id, users in self._users.items() if not users.users]
        podman_store.forget(self._repository, transaction, self._names, unused)
        for name in self._links:
            transaction.remove(name)
        for name in self._names:
            transaction.remove(layout.image_metadata(name))
        for image_id, users in self._users.items():
            if users.users:
                transaction.replace(layout.image_users(image_id), users.to_bytes())
                continue
            transaction.remove(layout.image_users(image_id))
            transaction.remove(layout.flat_image(image_id))
        for digest, origin in self._origins.items():
            if origin.images:
                transaction.replace(layout.layer_origin(digest), origin.to_bytes())
            else:
                transaction.remove(layout.layer_directory(digest))
        write_schedule(self._repository, transaction, self._schedule_before, self.schedule)
        if self.pins != self._pins_before:
            transaction.replace(layout.PINS, self.pins.to_bytes())

    def _note(self, release: Release, is_current: bool) -> None:
        entry = release.entry
        self.schedule = self.schedule.without(*entry.key)
        self.pins = self.pins.without(*entry.key)  # one whose time is over
        self._users[entry.image_id] = release.users
        self._origins |= release.origins
        if is_current:
            self._names.append(entry.name)
            # A link that leads elsewhere is not ours.
            target = layout.link_target(entry.name, entry.image_id)
            if self._repository.link_text(entry.name) == target:
                self._links.append(entry.name)

    def _facts(self, entry: ScheduledRemoval, manifest: Manifest) -> Facts:
        users = self._users_of(entry)
        siblings = {
            digest: self._manifest_of(name, digest)
            for name, digest in sorted(users.users - {entry.key})
            if digest != entry.manifest_digest
        }
        origins = {}
        for layer in manifest.layers:
            origin = self._origin_of(layer.digest)
            if origin is None:
                continue
            if entry.image_id not in origin.images:
                raise _stale(layout.layer_origin(layer.digest), f"it lacks {entry.image_id}")
            origins[layer.digest] = origin
        return Facts(entry, manifest, users, tuple(siblings.values()), origins)

    def _users_of(self, entry: ScheduledRemoval) -> ImageUsers:
        users = self._users.get(entry.image_id) or load_users(self._repository, entry.image_id)
        if users is not None and entry.key in users.users:
            return users
        # Another tool published the image, or one that shares it: only counting tells.
        if self._usage is None:
            self._usage = count_usage(self._repository)
        return ImageUsers(frozenset(self._usage.images.get(entry.image_id, ())) - self._released())

    def _released(self) -> frozenset[tuple[str, str]]:
        before = {e.key for e in self._schedule_before.entries}
        return frozenset(before - {e.key for e in self.schedule.entries})

    def _origin_of(self, digest: str) -> Origin | None:
        """The layer's record; None for a layer that is not there (any more)."""
        known = self._origins.get(digest)
        if known is not None:
            return known if known.images else None
        origin = load_origin(self._repository, digest)
        if origin is None and self._repository.exists(layout.layer_directory(digest)):
            raise _stale(layout.layer_origin(digest), "it is missing")
        return origin

    def _manifest_of(self, name: str, digest: str) -> Manifest:
        """The manifest through which another name uses the same image."""
        entry = self.schedule.find(name, digest)
        if entry is not None:
            return entry.parse_manifest()
        current = current_manifest(self._repository, name)
        if current is None or current[0] != digest:
            raise _stale(f"the record of who uses {digest}", f"{name} does not")
        return parse_published_manifest(current[1])

    def _is_current(self, entry: ScheduledRemoval) -> bool:
        """Whether the name still has this very manifest, and not one that came later."""
        current = current_manifest(self._repository, entry.name)
        return current is not None and current[0] == entry.manifest_digest

    def _layer_size(self, manifest: Manifest, digest: str) -> int:
        if self._repository.exists(layout.layer_index(digest)):
            with self._repository.open_index(digest) as file:
                return read_header(file).content_size
        return next(layer.size for layer in manifest.layers if layer.digest == digest)


def write_schedule(
    repository: Repository, transaction: Transaction, before: RemoveSchedule, after: RemoveSchedule
) -> None:
    """Write the schedule if it changed, and remove the metadata of what left it."""
    if after == before:
        return
    transaction.replace(layout.REMOVE_SCHEDULE, after.to_bytes())
    for digest in dict.fromkeys(entry.manifest_digest for entry in before.entries):
        retired = layout.retired_directory(digest)
        if not after.names_manifest(digest) and repository.exists(retired):
            transaction.remove(retired)


def _stale(what: str, why: str) -> Doubt:
    return Doubt(
        f"{what} is not up to date",
        why=why,
        hint="`publisher verify --repair` counts anew; until then the image stays",
    )
