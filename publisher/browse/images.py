"""What is published: the use cases behind `publisher list` and `publisher show`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from publisher.errors import InvalidManifest
from publisher.oci.config import ImageConfig, parse_config
from publisher.repository import Repository
from publisher.repository.published import NotPublished, PublishedImage, find_name, load_image
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import RemoveSchedule, ScheduledRemoval


@dataclass(frozen=True, slots=True)
class PublishedLayer:
    """One layer of an image: `images` counts the images that use it, -1 where that is unknown."""

    digest: str
    size: int
    path: str
    images: int


@dataclass(frozen=True, slots=True)
class ImageDetails:
    """Everything known of one published image.

    `config_data` are the exact bytes of the config, b"" where there is none. Where they cannot be
    used, `config` is None and `config_problem` names the reason.
    """

    image: PublishedImage
    flat_path: str
    layers: tuple[PublishedLayer, ...]
    config: ImageConfig | None
    config_data: bytes
    config_problem: str
    scheduled: tuple[ScheduledRemoval, ...]


def list_images(repository: Repository, pattern: str = "") -> Iterator[PublishedImage]:
    """The published images whose names match the glob `pattern` (all, without one), by name."""
    matches = _matcher(pattern)
    for name in repository.names():
        if matches(name):
            try:
                yield load_image(repository, name)
            except NotPublished:
                continue  # removed while we were listing


def show_image(repository: Repository, text: str) -> ImageDetails:
    """Everything about the image that `text` names: a published name, or an image reference."""
    image = load_image(repository, find_name(repository, text))
    if image.manifest is None:
        return ImageDetails(image, "", (), None, b"", "", ())
    data = repository.read(layout.config_file(image.name)) or b""
    config, problem = None, ""
    if data:
        try:
            config = parse_config(data, image.manifest.image_id)
        except InvalidManifest as error:
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
    schedule_data = repository.read(layout.REMOVE_SCHEDULE)
    schedule = (
        RemoveSchedule()
        if schedule_data is None
        else RemoveSchedule.parse(schedule_data, layout.REMOVE_SCHEDULE)
    )
    return ImageDetails(
        image,
        layout.flat_image(image.manifest.image_id),
        layers,
        config,
        data,
        problem,
        tuple(entry for entry in schedule.entries if entry.name == image.name),
    )


def _count_users(repository: Repository, digest: str) -> int:
    path = layout.layer_origin(digest)
    data = repository.read(path)
    if data is None:
        return -1
    try:
        return len(Origin.parse(data, path).images)
    except InvalidRecord:
        return -1


def _matcher(pattern: str) -> Callable[[str], bool]:
    if not pattern:
        return lambda name: True
    compiled = re.compile(fnmatch.translate(pattern))
    return lambda name: compiled.match(name) is not None
