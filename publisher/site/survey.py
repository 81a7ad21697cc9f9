"""What the pages are about: the images, layers, wishes and removals of a repository, read once."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from datetime import datetime

from publisher.browse.images import read_schedule_and_pins
from publisher.browse.statistics.growth import Period, growth
from publisher.browse.statistics.holdings import (
    Holder,
    Holdings,
    LayerSize,
    published_holder,
    retired_holder,
    single_files,
)
from publisher.browse.status import Selection, StatusLine, find_status
from publisher.errors import InvalidManifest, PublisherError, explain
from publisher.layers.index import read_header
from publisher.lazy import dataclass
from publisher.oci.manifest import Manifest
from publisher.repository import Repository, RepositoryError
from publisher.repository.published import NotPublished, PublishedImage, load_image
from publisher.repository.settings import client_mount, own_mount
from publisher.state import RunRecord, Tries
from publisher.tree import layout
from publisher.tree.history import Record
from publisher.tree.pins import Pin
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import ScheduledRemoval

_TRANSACTIONS = 20_000
"""How many transactions of the history are read, the latest first."""

_HISTORY_WORDS = frozenset(
    {"published", "replaced", "scheduled", "restored", "collected", "adopted", "pinned", "unpinned"}
)


@dataclass(frozen=True, slots=True)
class PastChange:
    """A change of an image: when, a word such as "published", and why."""

    time: str
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that pages are made of, except for configs and the entries of layers.

    Attributes:
        url: The URL of the repository.
        mount: The path at which clients mount it.
        images: The published images by name, sorted.
        wishes: The wishes and their states, as `publisher status` has them.
        has_state: Whether the state of runs is known on this machine.
        last_run: The last run of a command, or None.
        scheduled: The remove schedule.
        pins: The pins that are in force, by name and manifest digest.
        users: The IDs of the images that use each layer, published or scheduled.
        names: The published names of each image ID.
        compressed: The bytes of each layer, as it was downloaded.
        holdings: The same images and layers, for statistics.
        changes: The changes of each image, the latest first.
        growth: How much was published by the end of each month.
    """

    url: str
    mount: str
    images: Mapping[str, PublishedImage]
    wishes: Sequence[StatusLine]
    has_state: bool
    last_run: RunRecord | None
    scheduled: Sequence[ScheduledRemoval]
    pins: Mapping[tuple[str, str], Pin]
    users: Mapping[str, frozenset[str]]
    names: Mapping[str, Sequence[str]]
    compressed: Mapping[str, int]
    holdings: Holdings
    changes: Mapping[str, Sequence[PastChange]] = field(default_factory=dict)
    growth: Sequence[Period] = ()

    @property
    def sizes(self) -> Mapping[str, LayerSize]:
        """The sizes of the layers that have a readable index, without the number of files."""
        return self.holdings.layers

    def is_exclusive(self, digest: str) -> bool:
        """Return whether a single image uses the layer."""
        return len(self.users.get(digest, ())) == 1

    def stored_size(self, manifest: Manifest, *, exclusive: bool = False) -> int | None:
        """Return the bytes of all files of an image's layers, or None if one is unknown.

        With `exclusive`, only layers count that no other image uses.
        """
        digests = dict.fromkeys(layer.digest for layer in manifest.layers)
        chosen = [each for each in digests if not exclusive or self.is_exclusive(each)]
        if any(each not in self.sizes for each in chosen):
            return None
        return sum(self.sizes[each].stored for each in chosen)

    def freed(self, manifest: Manifest) -> int | None:
        """Return the bytes that go with the last name of an image, or None if they are unknown."""
        size = self.stored_size(manifest, exclusive=True)
        return None if size is None else size + self.holdings.single_files.get(manifest.image_id, 0)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the machine that publishes remembers of wishes and runs; see `publisher.state`."""

    tries: Sequence[Tries] = ()
    last_run: RunRecord | None = None
    is_known: bool = False


def survey_repository(
    repository: Repository,
    remembered: Remembered,
    now: datetime,
    known: Mapping[str, LayerSize],
    unreadable: Callable[[PublisherError], None],
) -> Survey:
    """Read everything that the pages are about.

    Args:
        repository: Opened for reading.
        remembered: The state of wishes and runs.
        now: The moment at which a pin has to be in force.
        known: The sizes of layers that were read before, which do not change.
        unreadable: Called with the error if a record is unreadable, which counts as empty.
    """
    wishes = find_status(repository, remembered.tries, Selection(), now, unreadable)
    images = _images(repository, wishes, unreadable)
    schedule, pins = read_schedule_and_pins(repository, unreadable)
    manifests = [image.manifest for image in images.values() if image.manifest is not None]
    retired = _retired(schedule.entries, unreadable)
    manifests += [manifest for _, manifest in retired]
    users: defaultdict[str, set[str]] = defaultdict(set)
    compressed: dict[str, int] = {}
    for manifest in manifests:
        for layer in manifest.layers:
            users[layer.digest].add(manifest.image_id)
            compressed[layer.digest] = layer.size
    holdings = Holdings(
        _holders(images.values(), retired),
        _layer_sizes(repository, users, known, unreadable),
        single_files(repository, lambda _, error: unreadable(error)),
    )
    history = _history(repository, unreadable)
    return Survey(
        url=str(repository.url),
        mount=_mount(repository, unreadable),
        images={name: images[name] for name in sorted(images)},
        wishes=wishes,
        has_state=remembered.is_known,
        last_run=remembered.last_run,
        scheduled=schedule.entries,
        pins={(pin.name, pin.manifest_digest): pin for pin in pins.pins if pin.holds(now)},
        users={digest: frozenset(users[digest]) for digest in sorted(users)},
        names=_names_by_image(images),
        compressed=compressed,
        holdings=holdings,
        changes=_past_changes(history, images),
        growth=growth(holdings, history),
    )


def _images(
    repository: Repository,
    wishes: Iterable[StatusLine],
    unreadable: Callable[[PublisherError], None],
) -> dict[str, PublishedImage]:
    """Return the published images by name: those of `wishes`, and those of further platforms."""
    found = {line.name: line.image for line in wishes if line.image is not None}
    has_platforms = repository.exists(layout.image_metadata(layout.MULTIARCH))
    for name in repository.names() if has_platforms else ():
        if name not in found:
            with suppress(NotPublished):  # it was removed concurrently
                found[name] = load_image(repository, name)
    for image in found.values():
        if image.manifest is None:
            what = f"cannot read {image.name}"
            unreadable(PublisherError(what, why=image.problem, hint="publisher verify"))
    return found


def _names_by_image(images: Mapping[str, PublishedImage]) -> dict[str, list[str]]:
    """Return the names of each image by its ID, sorted."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(images):
        manifest = images[name].manifest
        if manifest is not None:
            names[manifest.image_id].append(name)
    return names


def _history(repository: Repository, unreadable: Callable[[PublisherError], None]) -> list[Record]:
    history: list[Record] = []
    try:
        found = repository.history(
            lambda why: unreadable(PublisherError("cannot read all of the history", why=why))
        )
        history += itertools.islice(found, _TRANSACTIONS)
    except RepositoryError as error:  # users other than the publishing one may not read it
        unreadable(error)
    return history


def _holders(
    images: Iterable[PublishedImage], retired: Iterable[tuple[ScheduledRemoval, Manifest]]
) -> tuple[Holder, ...]:
    known: dict[str, str] = {}
    holders = {
        (image.name, image.manifest_digest): published_holder(image, image.manifest, known)
        for image in images
        if image.manifest is not None
    }
    for entry, manifest in retired:
        if entry.key not in holders:
            holders[entry.key] = retired_holder(entry, manifest, known)
    return tuple(holders.values())


def _mount(repository: Repository, unreadable: Callable[[PublisherError], None]) -> str:
    try:
        return client_mount(repository)
    except InvalidRecord as error:
        unreadable(error)
        return own_mount(repository)


def _retired(
    entries: Iterable[ScheduledRemoval], unreadable: Callable[[PublisherError], None]
) -> list[tuple[ScheduledRemoval, Manifest]]:
    manifests = []
    for entry in entries:
        try:
            manifests.append((entry, entry.parse_manifest()))
        except InvalidManifest as error:
            unreadable(error)
    return manifests


def _layer_sizes(
    repository: Repository,
    digests: Iterable[str],
    known: Mapping[str, LayerSize],
    unreadable: Callable[[PublisherError], None],
) -> dict[str, LayerSize]:
    sizes: dict[str, LayerSize] = {}
    for digest in digests:
        if digest in known:
            sizes[digest] = known[digest]
            continue
        try:
            with repository.open_index(digest) as file:
                header = read_header(file, digest)
        except (PublisherError, OSError) as error:
            unreadable(explain(error))  # the pages show its size as unknown
            continue
        sizes[digest] = LayerSize(header.stored_size, header.entries)
    return sizes


def _past_changes(
    history: Iterable[Record], names: Mapping[str, object]
) -> dict[str, list[PastChange]]:
    changes: defaultdict[str, list[PastChange]] = defaultdict(list)
    for record in history:
        for change in record.changes:
            if change.name in names and change.what in _HISTORY_WORDS:
                changes[change.name].append(PastChange(record.time, change.what, change.why))
    return changes
