"""List and show published images: the use cases behind `publisher list` and `publisher show`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from datetime import datetime

from publisher.errors import InvalidManifest, PublisherError
from publisher.layers.index import read_header
from publisher.lazy import dataclass
from publisher.oci.config import ImageConfig, parse_config
from publisher.repository import Repository
from publisher.repository.published import NotPublished, PublishedImage, find_name, load_image
from publisher.repository.reading import load_pins, load_schedule
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.pins import Pin, Pins
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import RemoveSchedule, ScheduledRemoval


@dataclass(frozen=True, slots=True)
class ListedImage:
    """A published image in a list.

    Attributes:
        size: The bytes of all files of its distinct layers; None if a layer has no index.
        scheduled: Its entry in the remove schedule, if it is scheduled.
        pin: The pin that holds it, if it is pinned.
    """

    image: PublishedImage
    size: int | None
    scheduled: ScheduledRemoval | None
    pin: Pin | None


@dataclass(frozen=True, slots=True)
class PublishedLayer:
    """One layer of an image: `images` counts the images that use it, or is -1 if unknown."""

    digest: str
    size: int
    path: str
    images: int


@dataclass(frozen=True, slots=True)
class ImageDetails:
    """The metadata, layers and schedule of one published image.

    `squashfs_path` is the image's single file, or "" if its outputs do not include one;
    `sbom_paths` are its bills of materials.
    `config_data` are the exact bytes of the config, or b"". If they are invalid, `config` is None
    and `config_problem` is the reason.
    """

    image: PublishedImage
    flat_path: str
    layers: tuple[PublishedLayer, ...]
    config: ImageConfig | None
    config_data: bytes
    config_problem: str
    scheduled: tuple[ScheduledRemoval, ...]
    squashfs_path: str = ""
    sbom_paths: tuple[str, ...] = ()


def list_images(repository: Repository, pattern: str = "") -> Iterator[PublishedImage]:
    """Yield the published images whose names match the glob `pattern` (all if it is ""), by name.

    Metadata that is unreadable is described in the image's `problem`.
    """
    matches = name_matcher(pattern)
    for name in repository.names():
        if matches(name):
            try:
                yield load_image(repository, name)
            except NotPublished:
                continue  # concurrently removed


def describe_images(
    repository: Repository,
    pattern: str,
    now: datetime,
    unreadable: Callable[[PublisherError], None],
) -> Iterator[ListedImage]:
    """Yield the images of `list_images` with their sizes, schedule entries and pins.

    Args:
        repository: Opened for reading.
        pattern: A glob that the names match; "" for all.
        now: The moment at which a pin has to be in force.
        unreadable: Called with the error if schedule or pins are unreadable, which count as empty.
    """
    schedule, pins = read_schedule_and_pins(repository, unreadable)
    scheduled = {entry.key: entry for entry in schedule.entries}
    sizes: dict[str, int | None] = {}
    for image in list_images(repository, pattern):
        key = (image.name, image.manifest_digest)
        size = _size(repository, image, sizes)
        yield ListedImage(image, size, scheduled.get(key), pins.find(*key, now))


def show_image(
    repository: Repository, text: str, unreadable: Callable[[PublisherError], None]
) -> ImageDetails:
    """Return everything about one published image.

    Args:
        repository: Opened for reading.
        text: A published name, or an image reference.
        unreadable: Called with the error if the schedule is unreadable, which counts as empty.

    Raises:
        NotPublished: The image is not published.
        InvalidReference: `text` is neither a name nor a reference.
    """
    image = load_image(repository, find_name(repository, text))
    if image.manifest is None:
        return ImageDetails(
            image=image,
            flat_path="",
            layers=(),
            config=None,
            config_data=b"",
            config_problem="",
            scheduled=(),
        )
    data, config, problem = b"", None, ""
    try:
        data = repository.read(layout.config_file(image.name)) or b""
        if data:
            config = parse_config(data, image.manifest.image_id)
    except (InvalidManifest, InvalidRecord) as error:
        problem = error.why
    layers = tuple(
        PublishedLayer(
            layer.digest,
            layer.size,
            layout.layer_tree(layer.digest),
            _count_users(repository, layer.digest),
        )
        for layer in image.manifest.layers
    )
    schedule, _ = read_schedule_and_pins(repository, unreadable)
    return ImageDetails(
        image=image,
        flat_path=layout.flat_image(image.manifest.image_id),
        layers=layers,
        config=config,
        config_data=data,
        config_problem=problem,
        scheduled=tuple(entry for entry in schedule.entries if entry.name == image.name),
        squashfs_path=layout.squashfs_file(image.manifest.image_id)
        if _has(image, "squashfs")
        else "",
        sbom_paths=layout.sbom_files(image.name) if _has(image, "sbom") else (),
    )


def _has(image: PublishedImage, output: str) -> bool:
    return image.publication is not None and output in image.publication.outputs


def read_schedule_and_pins(
    repository: Repository, unreadable: Callable[[PublisherError], None]
) -> tuple[RemoveSchedule, Pins]:
    """Return the schedule and the pins; a damaged one is empty, and reported to `unreadable`."""
    schedule, pins = RemoveSchedule(), Pins()
    try:
        schedule = load_schedule(repository)
        pins = load_pins(repository)
    except InvalidRecord as error:
        unreadable(error)
    return schedule, pins


def _size(
    repository: Repository, image: PublishedImage, sizes: dict[str, int | None]
) -> int | None:
    """Return the bytes of the image's files; `sizes` keeps those of layers for other images."""
    if image.manifest is None:
        return None
    total = 0
    for digest in {layer.digest for layer in image.manifest.layers}:
        if digest not in sizes:
            try:
                with repository.open_index(digest) as file:
                    sizes[digest] = read_header(file).stored_size
            except (PublisherError, OSError):
                sizes[digest] = None
        size = sizes[digest]
        if size is None:
            return None
        total += size
    return total


def _count_users(repository: Repository, digest: str) -> int:
    path = layout.layer_origin(digest)
    try:
        data = repository.read(path)
        if data is None:
            return -1
        return len(Origin.parse(data, path).images)
    except InvalidRecord:
        return -1


def name_matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a name matches a glob; "" matches every name."""
    if not pattern:
        return lambda name: True
    compiled = re.compile(fnmatch.translate(pattern))
    return lambda name: compiled.match(name) is not None
