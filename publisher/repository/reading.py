"""What a repository's own records say: schedule, pins, publications, and who uses an image.

Reading only. A record that is not there reads as an empty one; one that is unreadable raises
InvalidRecord, so that nothing is decided on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from publisher.oci.digest import digest_of
from publisher.oci.manifest import Manifest, parse_published_manifest
from publisher.repository import Repository
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.pins import Pins
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import RemoveSchedule
from publisher.tree.thin_image import ThinRecord
from publisher.tree.users import ImageUsers


def load_schedule(repository: Repository) -> RemoveSchedule:
    """The repository's remove schedule; an empty one where there is none yet."""
    data = repository.read(layout.REMOVE_SCHEDULE)
    return RemoveSchedule() if data is None else RemoveSchedule.parse(data, layout.REMOVE_SCHEDULE)


def load_pins(repository: Repository) -> Pins:
    """The repository's pins; none where there is no file yet."""
    data = repository.read(layout.PINS)
    return Pins() if data is None else Pins.parse(data, layout.PINS)


def load_publication(repository: Repository, name: str) -> Publication | None:
    """What is recorded of the image published as `name`; None if nothing is."""
    path = layout.publication_file(name)
    data = repository.read(path)
    return None if data is None else Publication.parse(data, path)


def load_origin(repository: Repository, digest: str) -> Origin | None:
    """Which images use the layer; None where there is no record."""
    path = layout.layer_origin(digest)
    data = repository.read(path)
    return None if data is None else Origin.parse(data, path)


def load_users(repository: Repository, image_id: str) -> ImageUsers | None:
    """Who uses the image; None where nobody wrote that down, as in trees of other tools."""
    path = layout.image_users(image_id)
    data = repository.read(path)
    return None if data is None else ImageUsers.parse(data, path)


def load_thin_record(repository: Repository, name: str) -> ThinRecord | None:
    """The record of what was pushed for `name`; an unreadable one counts as none."""
    path = layout.thin_file(name)
    data = repository.read(path)
    if data is None:
        return None
    try:
        return ThinRecord.parse(data, path)
    except InvalidRecord:
        return None  # then the registry is asked, which knows better


def current_manifest(repository: Repository, name: str) -> tuple[str, bytes] | None:
    """Digest and bytes of the manifest that is published as `name`; None if none is.

    The bytes are the registry's own, unless another tool re-serialised them; the digest is always
    theirs.
    """
    data = repository.read(layout.manifest_file(name))
    if data is None:
        return None
    publication = load_publication(repository, name)
    algorithm = publication.manifest_digest.partition(":")[0] if publication else "sha256"
    return digest_of(data, algorithm), data


@dataclass(slots=True)
class Usage:
    """Who uses what, counted anew from the manifests: what the records should say.

    `images` holds, by image ID, (name, manifest digest) of every published or scheduled manifest;
    `layers`, by digest, the image IDs of those that list the layer.
    """

    images: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    layers: dict[str, set[str]] = field(default_factory=dict)

    def add(self, name: str, manifest_digest: str, manifest: Manifest) -> None:
        """Count one manifest in."""
        self.images.setdefault(manifest.image_id, set()).add((name, manifest_digest))
        for layer in manifest.layers:
            self.layers.setdefault(layer.digest, set()).add(manifest.image_id)


def count_usage(repository: Repository) -> Usage:
    """Read every published and scheduled manifest.

    Raises InvalidRecord and InvalidManifest for the first that cannot be read: what it names is
    unknown then.
    """
    usage = Usage()
    for name, digest, manifest in live_manifests(repository):
        usage.add(name, digest, manifest)
    return usage


def live_manifests(repository: Repository) -> Iterator[tuple[str, str, Manifest]]:
    """(name, manifest digest, manifest) of everything that is published or scheduled."""
    for name in repository.names():
        found = current_manifest(repository, name)
        if found is not None:
            yield name, found[0], parse_published_manifest(found[1])
    for entry in load_schedule(repository).entries:
        yield entry.name, entry.manifest_digest, entry.parse_manifest()
