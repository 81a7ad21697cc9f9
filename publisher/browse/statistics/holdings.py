"""Read which manifests use which layers, and the sizes of these layers.

Sizes come from the headers of layer indexes, so that neither entries nor contents are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from datetime import datetime

from publisher.browse.contents import layer_index
from publisher.browse.images import list_images
from publisher.errors import InvalidManifest, PublisherError, explain
from publisher.lazy import dataclass
from publisher.oci.manifest import Manifest, distinct_from_top
from publisher.repository import Repository
from publisher.repository.published import PublishedImage
from publisher.repository.reading import load_schedule, load_users
from publisher.tree import layout
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import ScheduledRemoval

Unreadable = Callable[[str, PublisherError], None]
"""Called with the name of an image, layer or record that cannot be counted, and the reason."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A manifest that keeps layers in the repository.

    It is published under `name`, or was, and is scheduled for removal.

    Attributes:
        name: The public name, also below `.multiarch/`.
        layers: The digests of its layers from bottom to top. One that the manifest lists twice is
            at its upper place only.
        published: Whether the manifest has the name now.
        flat: Whether it is published as a flat image.
        since: When it was published; for a retired manifest, when it was scheduled; None if that
            is not recorded.
        owner: The owner in the wish list, or "".
        wish_lists: Every list that requests the image.
    """

    name: str
    manifest_digest: str
    image_id: str
    layers: tuple[str, ...]
    published: bool
    flat: bool = False
    since: datetime | None = None
    owner: str = ""
    wish_lists: frozenset[str] = frozenset()

    @property
    def plain_name(self) -> str:
        """The name without the platform: that by which the image is removed."""
        return layout.split_platform(self.name)[1]


@dataclass(frozen=True, slots=True)
class LayerSize:
    """The size of a layer, from the header of its index.

    Attributes:
        stored: The bytes that its files take in the tree.
        entries: The number of its paths.
        files: The number of names of files; None if an earlier release wrote the index, or if it
            was not read.
    """

    stored: int
    entries: int
    files: int | None = None


@dataclass(frozen=True, slots=True)
class Holdings:
    """The manifests of a repository and the sizes of their layers.

    Attributes:
        holders: Every published or scheduled manifest that is readable, published ones first.
        layers: By digest; a layer whose size is unknown is missing.
        single_files: The sizes in bytes of squashfs files, by image ID.
    """

    holders: tuple[Holder, ...]
    layers: Mapping[str, LayerSize]
    single_files: Mapping[str, int] = field(default_factory=dict)

    def stored(self, layers: Iterable[str]) -> int:
        """Return the bytes of those of `layers` whose size is known; each is counted once."""
        return sum(self.layers[each].stored for each in set(layers) if each in self.layers)


def read_holdings(repository: Repository, unreadable: Unreadable) -> Holdings:
    """Return everything that statistics are computed from.

    Args:
        repository: Opened for reading.
        unreadable: Called with each image, layer or record that is not counted.
    """
    holders = read_holders(repository, unreadable)
    digests = dict.fromkeys(digest for holder in holders for digest in holder.layers)
    return Holdings(
        holders,
        layer_sizes(repository, digests, unreadable),
        single_files(repository, unreadable),
    )


def read_holders(repository: Repository, unreadable: Unreadable) -> tuple[Holder, ...]:
    """Return every manifest that keeps layers; see `read_holdings` for the arguments."""
    known: dict[str, str] = {}
    holders = {
        (each.name, each.manifest_digest): each
        for each in _published(repository, known, unreadable)
    }
    try:
        scheduled = load_schedule(repository).entries
    except (PublisherError, OSError) as error:
        unreadable(layout.REMOVE_SCHEDULE, explain(error))
        scheduled = ()
    for entry in scheduled:
        if entry.key not in holders:
            try:
                holders[entry.key] = retired_holder(entry, entry.parse_manifest(), known)
            except (InvalidManifest, InvalidRecord) as error:
                unreadable(f"{entry.name}@{entry.manifest_digest}", error)
    return tuple(holders.values())


def layer_sizes(
    repository: Repository, digests: Iterable[str], unreadable: Unreadable, *, count: bool = False
) -> dict[str, LayerSize]:
    """Return the sizes of those of these layers that have a readable index.

    With `count`, the files are counted where the header of an earlier release lacks their number.
    """
    found = {}
    for digest in digests:
        try:
            index = layer_index(repository, digest)
            header = index.header
            files = header.files
            if count and files is None:
                files = index.files()
        except (PublisherError, OSError) as error:
            unreadable(digest, explain(error))
        else:
            found[digest] = LayerSize(header.stored_size, header.entries, files)
    return found


def single_files(repository: Repository, unreadable: Unreadable) -> dict[str, int]:
    """Return the sizes of all squashfs files by image ID, from the records of the images."""
    sizes = {}
    for shard in repository.children(layout.SQUASHFS):
        for name in repository.children(f"{layout.SQUASHFS}/{shard}"):
            image_id = f"{'sha256' if len(name) == 64 else 'sha512'}:{name}"
            try:
                users = load_users(repository, image_id)
            except (PublisherError, OSError) as error:
                unreadable(image_id, explain(error))
                continue
            if users is not None and users.squashfs is not None:
                sizes[image_id] = users.squashfs.size
    return sizes


def _published(
    repository: Repository, known: dict[str, str], unreadable: Unreadable
) -> Iterator[Holder]:
    for image in list_images(repository):
        if image.manifest is None:
            unreadable(image.name, PublisherError(f"cannot read {image.name}", why=image.problem))
            continue
        yield published_holder(image, image.manifest, known)


def published_holder(image: PublishedImage, manifest: Manifest, known: dict[str, str]) -> Holder:
    """Return a published image as a holder.

    Args:
        image: The image.
        manifest: Its manifest.
        known: The digests of the layers of all holders so far, which share them.
    """
    record = image.publication
    return Holder(
        image.name,
        image.manifest_digest,
        manifest.image_id,
        _layers(manifest, known),
        published=True,
        flat=image.linked,
        since=record.published_at if record else None,
        owner=record.owner if record else "",
        wish_lists=record.wish_lists if record else frozenset(),
    )


def retired_holder(entry: ScheduledRemoval, manifest: Manifest, known: dict[str, str]) -> Holder:
    """Return a retired image, with the manifest of its entry, as a holder."""
    return Holder(
        entry.name,
        entry.manifest_digest,
        entry.image_id,
        _layers(manifest, known),
        published=False,
        since=entry.scheduled_at,
    )


def _layers(manifest: Manifest, known: dict[str, str]) -> tuple[str, ...]:
    """Return the digests of the layers, each once; equal ones of all manifests are one object."""
    digests = [layer.digest for layer in manifest.layers]
    upper = distinct_from_top(digests)
    return tuple(known.setdefault(digests[at], digests[at]) for at in upper)
