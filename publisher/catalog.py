"""What is published: the use cases behind `publisher list` and `publisher show`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from publisher import layout
from publisher.errors import InvalidManifest, PublisherError
from publisher.manifest import (
    ImageConfig,
    Manifest,
    digest_of,
    parse_config,
    parse_published_manifest,
)
from publisher.records import (
    InvalidRecord,
    Origin,
    Publication,
    RemoveSchedule,
    ScheduledRemoval,
)
from publisher.reference import parse_reference
from publisher.repository import Repository


class NotPublished(PublisherError):
    """No image of that name is published."""


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """One published image. `publication` is None where another tool published it.

    `problem` says, in words, why the image's metadata could not be read in full; else it is "".
    """

    name: str
    manifest_digest: str = ""
    manifest: Manifest | None = None
    publication: Publication | None = None
    linked: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PublishedLayer:
    """One layer of an image: `images` counts the images that use it, -1 where that is unknown."""

    digest: str
    size: int
    path: str
    images: int


@dataclass(frozen=True, slots=True)
class ImageDetails:
    """Everything known of one published image."""

    image: PublishedImage
    flat_path: str
    layers: tuple[PublishedLayer, ...]
    config: ImageConfig | None
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


def load_image(repository: Repository, name: str) -> PublishedImage:
    """What is published as `name`; unreadable metadata is reported, not raised."""
    data = repository.read(layout.manifest_file(name))
    if data is None:
        raise NotPublished(
            f"no image is published as {name}",
            hint="`publisher list` shows what is; names are registry/path/name:tag",
        )
    linked = repository.link_text(name) is not None
    digest = digest_of(data)
    try:
        manifest = parse_published_manifest(data)
        path = layout.publication_file(name)
        record = repository.read(path)
        publication = None if record is None else Publication.parse(record, path)
    except (InvalidManifest, InvalidRecord) as error:
        return PublishedImage(name, digest, linked=linked, problem=str(error))
    if publication is not None:
        digest = publication.manifest_digest
    return PublishedImage(name, digest, manifest, publication, linked)


def show_image(repository: Repository, text: str) -> ImageDetails:
    """Everything about the image that `text` names: a published name, or an image reference."""
    image = load_image(repository, find_name(repository, text))
    if image.manifest is None:
        return ImageDetails(image, "", (), None, ())
    data = repository.read(layout.config_file(image.name))
    config = None if data is None else parse_config(data, image.manifest.image_id)
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
        tuple(entry for entry in schedule.entries if entry.name == image.name),
    )


def find_name(repository: Repository, text: str) -> str:
    """The published name that `text` means; NotPublished if there is none."""
    if repository.exists(layout.manifest_file(text)) and ".." not in text.split("/"):
        return text
    if text.partition("/")[0] in (layout.LOCAL, layout.MULTIARCH):
        return text  # a name, and no reference, although none is published under it
    return layout.public_name(parse_reference(text))


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
