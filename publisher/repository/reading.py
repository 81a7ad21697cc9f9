"""Single records of a repository, read without a lock; and what all manifests together use.

A record that does not exist reads as an empty one or as None; a damaged one raises InvalidRecord,
so that nothing is decided on it. Code that changes records uses a `RecordSet` instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from publisher.lazy import dataclass
from publisher.oci.manifest import Manifest
from publisher.repository.protocol import Repository
from publisher.repository.records import CurrentManifest, RecordSet
from publisher.tree.pins import Pins
from publisher.tree.publication import Publication
from publisher.tree.schedule import RemoveSchedule
from publisher.tree.thin_image import ThinRecord
from publisher.tree.users import ImageUsers


def load_schedule(repository: Repository) -> RemoveSchedule:
    """Return all entries of the remove schedule, in the order of scheduling."""
    return RemoveSchedule(RecordSet(repository).schedule.all())


def load_pins(repository: Repository) -> Pins:
    """Return the repository's pins."""
    return RecordSet(repository).pins


def load_publication(repository: Repository, name: str) -> Publication | None:
    """Return what is recorded of the image published as `name`; None if nothing is."""
    return RecordSet(repository).publication(name)


def load_users(repository: Repository, image_id: str) -> ImageUsers | None:
    """Return the users of the image; None without a record, as in trees of other tools."""
    return RecordSet(repository).users(image_id)


def load_thin_record(repository: Repository, name: str) -> ThinRecord | None:
    """Return what was pushed as the thin image of `name`; None if that is not known."""
    return RecordSet(repository).thin_record(name)


def current_manifest(repository: Repository, name: str) -> CurrentManifest | None:
    """Return the manifest that is published as `name`; None if none is."""
    return RecordSet(repository).manifest(name)


@dataclass(slots=True)
class Usage:
    """The reference counts according to the manifests, which the records should contain.

    `images` holds, by image ID, (name, manifest digest) of every published or scheduled manifest;
    `layers`, by digest, the image IDs of those that list the layer.
    """

    images: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    layers: dict[str, set[str]] = field(default_factory=dict)

    def add(self, name: str, manifest_digest: str, manifest: Manifest) -> None:
        """Count one manifest in."""
        self.add_unnamed(manifest)
        self.images[manifest.image_id].add((name, manifest_digest))

    def add_unnamed(self, manifest: Manifest) -> None:
        """Count in a manifest of which neither name nor digest is known."""
        self.images.setdefault(manifest.image_id, set())
        for layer in manifest.layers:
            self.layers.setdefault(layer.digest, set()).add(manifest.image_id)


def count_usage(repository: Repository) -> Usage:
    """Read every published and scheduled manifest.

    Raises:
        InvalidRecord: The schedule cannot be read, so that what it uses is unknown.
        InvalidManifest: A published or scheduled manifest cannot be read.
    """
    usage = Usage()
    for name, digest, manifest in live_manifests(repository):
        usage.add(name, digest, manifest)
    return usage


def live_manifests(repository: Repository) -> Iterator[tuple[str, str, Manifest]]:
    """Return (name, manifest digest, manifest) of everything that is published or scheduled."""
    for name in repository.names():
        found = current_manifest(repository, name)
        if found is not None:
            yield name, found.digest, found.parse()
    for entry in load_schedule(repository).entries:
        yield entry.name, entry.manifest_digest, entry.parse_manifest()
