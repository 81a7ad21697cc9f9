"""One published image, looked up by name."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

from publisher.errors import InvalidManifest, PublisherError
from publisher.lazy import dataclass
from publisher.oci.digest import digest_of
from publisher.oci.manifest import Manifest, parse_published_manifest
from publisher.oci.reference import parse_reference
from publisher.repository.damaged import read_damaged
from publisher.repository.protocol import Repository
from publisher.tree import layout
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord

_TAGS_SHOWN = 5


class NotPublished(PublisherError):
    """No image is published as `name`, which may be a pattern."""

    def __init__(self, what: str, *, name: str, why: str = "", hint: str = "") -> None:
        super().__init__(what, why=why, hint=hint)
        self.name = name


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """One published image. `publication` is None if another tool published it.

    `problem` is why the image's metadata could not be read in full, or "".
    """

    name: str
    manifest_digest: str = ""
    manifest: Manifest | None = None
    publication: Publication | None = None
    linked: bool = False
    problem: str = ""


def load_image(repository: Repository, name: str) -> PublishedImage:
    """Return what is published as `name`; unreadable metadata is reported, not raised.

    Raises NotPublished if there is no such name.
    """
    try:
        data = repository.read(layout.manifest_file(name))
    except InvalidRecord as error:
        linked = False
        with suppress(InvalidRecord):
            linked = repository.link_text(name) is not None
        return PublishedImage(name, linked=linked, problem=str(error))
    if data is None:
        raise NotPublished(
            f"no image is published as {name}",
            name=name,
            hint=_published_instead(repository, name),
        )
    linked = False
    digest = digest_of(data)
    try:
        linked = repository.link_text(name) is not None
        manifest = parse_published_manifest(data)
        path = layout.publication_file(name)
        record = read_damaged(repository, path)
        publication = None if record is None else Publication.parse(record, path)
    except (InvalidManifest, InvalidRecord) as error:
        return PublishedImage(name, digest, linked=linked, problem=str(error))
    if publication is not None:
        digest = publication.manifest_digest
    return PublishedImage(name, digest, manifest, publication, linked)


def _published_instead(repository: Repository, name: str) -> str:
    """Return where to look in place of `name`: at other tags, or at the list of all images."""
    parent, _, last = name.rpartition("/")
    tags: list[str] = []
    if parent and ".." not in name.split("/"):
        with suppress(OSError):
            # The latest first, so that no more of them are looked up than needed.
            published = (
                f"{parent}/{each}"
                for each in reversed(repository.children(layout.image_metadata(parent)))
                if each.startswith(f"{last.partition(':')[0]}:")
                and repository.exists(layout.manifest_file(f"{parent}/{each}"))
            )
            tags = list(islice(published, _TAGS_SHOWN + 1))
    if tags:
        more = ", …" if len(tags) > _TAGS_SHOWN else ""
        return f"name a published tag: {', '.join(reversed(tags[:_TAGS_SHOWN]))}{more}"
    return "`publisher list` shows what is; names are registry/path/name:tag"


def published_places(repository: Repository, name: str) -> list[str]:
    """Return the published names of the image `name`: that name, and those by platform."""
    names = possible_places(repository, name)
    return [each for each in names if repository.exists(layout.manifest_file(each))]


def possible_places(repository: Repository, name: str) -> list[str]:
    """Return `name`, and its names for the platforms that the repository has."""
    if layout.split_platform(name)[0]:
        return [name]
    platforms = repository.children(layout.image_metadata(layout.MULTIARCH))
    return [name, *(layout.platform_name(name, platform) for platform in platforms)]


def find_name(repository: Repository, text: str) -> str:
    """Return the published name that `text` means; it need not be published."""
    if repository.exists(layout.manifest_file(text)) and ".." not in text.split("/"):
        return text
    if layout.is_never_a_reference(text):
        return text  # it is not published
    return layout.public_name(parse_reference(text))
