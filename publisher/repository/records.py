"""The records of a repository, as one transaction reads and changes them.

A `RecordSet` reads each file at most once, keeps changes in memory, and writes what differs from
what was read. Under the writer lock it is a snapshot: no other process changes a record.
Without the lock it is what a dry run, a plan or a listing needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from publisher.errors import InvalidManifest
from publisher.lazy import dataclass
from publisher.oci.chain import chain_ids
from publisher.oci.digest import digest_of
from publisher.repository.damaged import read_damaged
from publisher.repository.protocol import Repository, Transaction
from publisher.repository.schedule_files import StoredSchedule, schedule_files
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.pins import Pins
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord, Unreadable
from publisher.tree.schedule import ScheduledRemoval
from publisher.tree.thin_image import ThinRecord
from publisher.tree.users import ImageUsers

if TYPE_CHECKING:
    from publisher.oci.manifest import Manifest

T = TypeVar("T")

IMAGE_FILES = (layout.MANIFEST_FILE, layout.CONFIG_FILE, layout.PUBLICATION_FILE)
"""The metadata files of a retired image that are kept."""


@dataclass(frozen=True, slots=True)
class CurrentManifest:
    """The manifest that is published under a name.

    `data` is the registry's exact bytes, unless another tool re-serialised them; `digest` is that
    of these bytes.
    """

    digest: str
    data: bytes

    def parse(self) -> Manifest:
        """Return the manifest; raise InvalidManifest if it is damaged."""
        if isinstance(self.data, Unreadable):
            raise InvalidManifest("cannot read a manifest", why=self.data.why)
        from publisher.oci.manifest import parse_published_manifest

        return parse_published_manifest(self.data)


class RecordSet:
    """The records of a repository: read once each, changed in memory, written where they changed.

    Methods that read raise InvalidRecord for a record that is damaged or of an unknown version.

    Attributes:
        schedule: The remove schedule.
    """

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._files: dict[str, bytes | None] = {}
        self._links: dict[str, str | None] = {}
        self._parsed: dict[str, Any] = {}
        self._new_files: dict[str, bytes] = {}
        self._new_links: dict[str, str] = {}
        self._removed_links: dict[str, None] = {}
        self._removed: dict[str, None] = {}
        self.schedule = StoredSchedule(repository, self._read)

    @property
    def changes(self) -> int:
        """How many records and trees have changed so far."""
        return len(self._new_files) + len(self._removed) + len(self.schedule.changed)

    # What is published

    def publication(self, name: str) -> Publication | None:
        """Return what is recorded of the image published as `name`; None if nothing is."""
        return self._record(layout.publication_file(name), Publication.parse)

    def readable_publication(self, name: str) -> Publication | None:
        """Return the record; None also if it is damaged."""
        try:
            return self.publication(name)
        except InvalidRecord:
            return None

    def manifest(self, name: str) -> CurrentManifest | None:
        """Return the manifest published as `name`; None if none is."""
        data = self.file(layout.manifest_file(name))
        if data is None:
            return None
        publication = self.readable_publication(name)
        algorithm = publication.manifest_digest.partition(":")[0] if publication else "sha256"
        return CurrentManifest(digest_of(data, algorithm), data)

    def is_published(self, name: str, manifest_digest: str) -> bool:
        """Return whether this manifest is published as `name`."""
        current = self.manifest(name)
        return current is not None and current.digest == manifest_digest

    def link(self, name: str) -> str | None:
        """Return the text of a public link or chain link; None if it is missing."""
        if name in self._removed_links:
            return None
        if name in self._new_links:
            return self._new_links[name]
        if name not in self._links:
            self._links[name] = self.repository.link_text(name)
        return self._links[name]

    def thin_record(self, name: str) -> ThinRecord | None:
        """Return what was pushed as the thin image of `name`; None if that is not known."""
        try:
            return self._record(layout.thin_file(name), ThinRecord.parse)
        except InvalidRecord:
            return None  # the next ingest then asks the registry

    def file(self, path: str) -> bytes | None:
        """Return the bytes of a small file; None if it is missing."""
        new = self._new_files.get(path)
        return new if new is not None else self._read(path)

    def set_file(self, path: str, content: bytes) -> bool:
        """Replace a small file; return whether its content changes."""
        if self.file(path) == content:
            return False
        self._new_files[path] = content
        self._parsed.pop(path, None)
        return True

    def set_bills(self, name: str, documents: Mapping[str, bytes]) -> bool:
        """Replace the bills of materials of `name`, which are `documents` by their paths.

        Those that are not among them are removed. Returns whether anything changes.
        """
        changed = False
        for path in layout.sbom_files(name):
            if path in documents:
                changed |= self.set_file(path, documents[path])
            elif self.repository.exists(path):
                self.remove(path)
                changed = True
        return changed

    def set_publication(self, publication: Publication) -> bool:
        """Replace the record of the image published under the record's name."""
        return self.set_file(layout.publication_file(publication.name), publication.to_bytes())

    def set_link(self, name: str, image_id: str) -> bool:
        """Make the public link `name` lead to a flat image; return whether it changes."""
        return self._set_link(name, layout.link_target(name, image_id))

    def remove_link(self, name: str, image_id: str = "") -> bool:
        """Remove a public link or chain link; with `image_id` only if it leads to that image."""
        text = self.link(name)
        if text is None or (image_id and text != layout.link_target(name, image_id)):
            return False
        self._new_links.pop(name, None)
        self._removed_links[name] = None
        return True

    def set_squashfs_link(self, name: str, image_id: str) -> bool:
        """Make the link to the squashfs file of `name` lead to that image; see `set_link`."""
        return self._set_link(layout.squashfs_link(name), layout.squashfs_target(name, image_id))

    def remove_squashfs_link(self, name: str, image_id: str = "") -> bool:
        """Remove the link to the squashfs file of `name`; arguments and result as `remove_link`."""
        path = layout.squashfs_link(name)
        if image_id and self.link(path) != layout.squashfs_target(name, image_id):
            return False
        return self.remove_link(path)

    def remove(self, path: str) -> None:
        """Remove a file or a whole tree, after the links and in the order of the calls."""
        self._removed[path] = None
        inside = f"{path}/"
        for changed in [p for p in self._new_files if p == path or p.startswith(inside)]:
            del self._new_files[changed]

    def is_removed(self, path: str) -> bool:
        """Return whether a file or tree is about to be removed."""
        return path in self._removed

    # Reference counts

    def origin(self, digest: str) -> Origin | None:
        """Return which images use the layer; None where there is no record."""
        return self._record(layout.layer_origin(digest), Origin.parse)

    def users(self, image_id: str) -> ImageUsers | None:
        """Return what uses the image; None where there is no record, as in trees of other tools."""
        return self._record(layout.image_users(image_id), ImageUsers.parse)

    def set_origin(self, digest: str, origin: Origin) -> None:
        """Replace the record of a layer, which is removed if no image uses it any more.

        With the layer, the links by chain ID that lead to it are removed; one that another layer
        has as well leads to that layer instead.
        """
        self._set_origin(digest, origin)
        if not origin.images:
            self.remove(layout.layer_directory(digest))
            for chain in origin.chains:
                self._unlink_chain(chain, digest, origin.alternatives)

    def add_chains(self, layers: Sequence[str], diff_ids: Sequence[str]) -> None:
        """Link the layers of an image by their chain IDs.

        A link that leads to another published layer stays: that layer has the same content,
        compressed differently. Both records then name each other, so that the link can be changed
        when one of them is removed.

        Args:
            layers: The digests of layers that are published, or about to be, from bottom to top,
                each with a record of the images that use it.
            diff_ids: Their diff IDs, from the image's config.
        """
        for digest, chain in zip(layers, chain_ids(diff_ids), strict=True):
            path = layout.chain_link(chain)
            linked = layout.chained_layer(self.link(path) or "")
            other = self._readable_origin(linked) if linked not in (None, digest) else None
            origin = (self.origin(digest) or Origin()).with_chain(chain)
            if linked is not None and other is not None:
                self._set_origin(linked, other.with_chain(chain).with_alternative(digest))
                origin = origin.with_alternative(linked)
            else:
                self._set_link(path, layout.chain_target(digest))
            self._set_origin(digest, origin)

    def set_users(self, image_id: str, users: ImageUsers) -> None:
        """Replace the record of an image; its content is removed if no name uses it any more."""
        self._set(layout.image_users(image_id), users, users.to_bytes())
        if not users.users:
            self.remove(layout.image_users(image_id))
            self.remove(layout.flat_image(image_id))
            # The squashfs file is also removed where a record that was built again lacks it.
            for path in (layout.hot_files(image_id), layout.squashfs_file(image_id)):
                if self.repository.exists(path):
                    self.remove(path)

    # Pins

    @property
    def pins(self) -> Pins:
        """The pins; empty where there is no file yet."""
        return self._record(layout.PINS, Pins.parse) or Pins()

    def set_pins(self, pins: Pins) -> None:
        """Replace all pins."""
        self.set_file(layout.PINS, pins.to_bytes())

    # The remove schedule

    def replace_schedule(self, entries: Iterable[ScheduledRemoval]) -> None:
        """Replace the whole schedule, even if the existing one is damaged."""
        self.schedule = StoredSchedule(self.repository, self._read, entries)
        kept = {layout.retired_schedule(digest) for digest in self.schedule.changed}
        for path in schedule_files(self.repository):
            if path not in kept:
                self.remove(path)

    def write(self, transaction: Transaction) -> bool:
        """Add all changes to the transaction; return whether there are any.

        Links are removed before their targets.
        """
        # The entry of a retired image comes first, so that its layers are always named.
        files = [
            (path, content)
            for path, content in (self.schedule.new_files() | self._new_files).items()
            if self._files.get(path) != content
        ]
        for path, content in files:
            transaction.replace(path, content)
        for name, text in self._new_links.items():
            transaction.symlink(name, text)
        removed = [*self._removed_links, *self._removed, *self.schedule.removed_directories()]
        for path in removed:
            transaction.remove(path)
        return bool(files or self._new_links or removed)

    def _read(self, path: str) -> bytes | None:
        if path not in self._files:
            self._files[path] = read_damaged(self.repository, path)
        return self._files[path]

    def _record(self, path: str, parse: Callable[[bytes, str], T]) -> T | None:
        if path not in self._parsed:
            data = self.file(path)
            self._parsed[path] = None if data is None else parse(data, path)
        found: T | None = self._parsed[path]
        return found

    def _readable_origin(self, digest: str) -> Origin | None:
        """Return the record of a layer that is, and stays, published; None where it is damaged."""
        directory = layout.layer_directory(digest)
        is_new = layout.layer_origin(digest) in self._new_files
        if self.is_removed(directory) or not (is_new or self.repository.exists(directory)):
            return None
        try:
            return self.origin(digest)
        except InvalidRecord:
            return None

    def _unlink_chain(self, chain: str, digest: str, alternatives: Iterable[str]) -> None:
        path = layout.chain_link(chain)
        if self.link(path) != layout.chain_target(digest):
            return
        for other in sorted(alternatives):
            origin = self._readable_origin(other)
            if origin is not None and chain in origin.chains:
                self._set_link(path, layout.chain_target(other))
                return
        self.remove_link(path)

    def _set_link(self, path: str, target: str) -> bool:
        if self.link(path) == target:
            return False
        self._removed_links.pop(path, None)
        self._new_links[path] = target
        return True

    def _set_origin(self, digest: str, origin: Origin) -> None:
        self._set(layout.layer_origin(digest), origin, origin.to_bytes())

    def _set(self, path: str, record: object, content: bytes) -> None:
        self.set_file(path, content)
        self._parsed[path] = record
