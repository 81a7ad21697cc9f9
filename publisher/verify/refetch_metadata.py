"""Fetch manifest and config of an image again, exactly as they were published."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from publisher.errors import InvalidManifest, PublisherError
from publisher.lazy import dataclass
from publisher.oci.config import parse_config
from publisher.oci.digest import digest_like, digest_of, is_digest
from publisher.oci.image import PlatformImage
from publisher.oci.manifest import parse_published_manifest
from publisher.oci.platform import Platform
from publisher.oci.reference import parse_reference
from publisher.repository import Repository, RepositoryChanged
from publisher.repository.damaged import read_damaged
from publisher.repository.records import IMAGE_FILES
from publisher.sources.image import fetch_images
from publisher.sources.open import Sources
from publisher.times import utc_now
from publisher.tree import layout
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import ScheduledRemoval
from publisher.verify.rebuild import reference_of
from publisher.verify.salvage import salvage_fields
from publisher.verify.survey import take_inventory
from publisher.wishlist import DEFAULT_OUTPUTS

_DEFAULT_PLATFORM = Platform("linux", "amd64")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The image to be fetched; `digest` is "" if no record has the manifest's digest."""

    reference: str
    digest: str
    platform: Platform


def refetch_metadata(
    repository: Repository, sources: Sources, name: str, paths: Collection[str]
) -> None:
    """Write the exact manifest and config of the image published as `name` again.

    They are copied from another place of the repository if possible, or else fetched from the
    image's source. If the publication is unreadable, it is written as well.

    Raises:
        RepositoryChanged: The image was published again, or removed, in the meantime.
        PublisherError: The source is unavailable, or does not have the image any more.
    """
    places = [f"{layout.image_metadata(name)}/{file}" for file in IMAGE_FILES]
    before = [read_damaged(repository, place) for place in places]
    publication = _publication(repository, name)
    wanted = _wanted(repository, name, publication)
    try:
        files, image = _fetch(repository, sources, wanted, name)
    except PublisherError as error:
        raise PublisherError(
            f"cannot repair the metadata of {name}",
            why=f"{error.what}: {error.why}",
            hint=f"if its source does not have it any more: publisher remove --unreadable {name}",
        ) from error
    content = {f"{layout.image_metadata(name)}/{file}": data for file, data in files.items()}
    if publication is None and image is not None:
        content[layout.publication_file(name)] = Publication(
            name=name,
            reference=wanted.reference,
            source_digest=image.source_digest,
            manifest_digest=image.document.digest,
            image_id=image.manifest.image_id,
            platform=str(image.config.platform.normalized()),
            outputs=DEFAULT_OUTPUTS if repository.link_text(name) else ("layers",),
            published_at=utc_now(),
        ).to_bytes()
    with repository.transaction(f"repair of the metadata of {name}") as transaction:
        with transaction.exclusive():
            if [read_damaged(repository, place) for place in places] != before:
                raise RepositoryChanged(
                    f"cannot repair the metadata of {name}",
                    why="the image was concurrently published again, or removed",
                    hint="publisher verify",
                )
            for place, data in content.items():
                if read_damaged(repository, place) != data:
                    transaction.replace(place, data)
            transaction.record(name, "metadata fetched again", ", ".join(sorted(paths)))
            transaction.commit()


def refetch_retired(
    repository: Repository, sources: Sources, name: str, paths: Collection[str]
) -> None:
    """Write the damaged or missing metadata of retired images of the name `name` again.

    Raises:
        PublisherError: The source is unavailable, or does not have the image any more.
    """
    for entry in take_inventory(repository).schedule:
        directory = layout.retired_directory(entry.manifest_digest)
        damaged = [path for path in paths if path.rpartition("/")[0] == directory]
        if entry.name != name or not damaged:
            continue
        wanted = _Wanted(
            entry.reference or name, entry.manifest_digest, _retired_platform(repository, entry)
        )
        files, _ = _fetch(repository, sources, wanted, name)
        with repository.transaction(f"repair of the metadata of {name}") as transaction:
            with transaction.exclusive():
                if entry not in take_inventory(repository).schedule:
                    continue  # a concurrent collection removed it
                for path in damaged:
                    transaction.replace(path, files[path.rpartition("/")[2]])
                transaction.record(name, "metadata fetched again", ", ".join(sorted(damaged)))
                transaction.commit()


def _fetch(
    repository: Repository, sources: Sources, wanted: _Wanted, name: str
) -> tuple[Mapping[str, bytes], PlatformImage | None]:
    """Return manifest and config by file name; and the image, if it was fetched from its source."""
    copy = _find_copy(repository, wanted.digest)
    if copy is not None:
        return copy, None
    if not wanted.reference:
        raise PublisherError(
            f"cannot fetch {name}",
            why="no record has the reference of the image",
            hint="publisher ingest, with the wish list that lists it",
        )
    source = sources.open(parse_reference(wanted.reference))
    [image] = fetch_images(source, [wanted.platform], wanted.digest or source.resolve())
    files = {
        layout.MANIFEST_FILE: image.document.data,
        layout.CONFIG_FILE: image.config_document.data,
    }
    return files, image


def _find_copy(repository: Repository, digest: str) -> Mapping[str, bytes] | None:
    """Return manifest and config from another place of the repository, if it has both."""
    if not digest:
        return None
    directories = [layout.retired_directory(digest)]
    directories += [layout.image_metadata(name) for name in repository.names()]
    for directory in directories:
        try:
            manifest = read_damaged(repository, f"{directory}/{layout.MANIFEST_FILE}")
            if manifest is None or digest_like(manifest, digest) != digest:
                continue
            image_id = parse_published_manifest(manifest).image_id
            config = read_damaged(repository, f"{directory}/{layout.CONFIG_FILE}")
        except (OSError, InvalidManifest):
            continue
        if config is not None and digest_like(config, image_id) == image_id:
            return {layout.MANIFEST_FILE: manifest, layout.CONFIG_FILE: config}
    return None


def _publication(repository: Repository, name: str) -> Publication | None:
    path = layout.publication_file(name)
    data = read_damaged(repository, path)
    try:
        return Publication.parse(data, path) if data is not None else None
    except InvalidRecord:
        return None


def _wanted(repository: Repository, name: str, publication: Publication | None) -> _Wanted:
    """Return the image published as `name`, from its record, or from its remaining files."""
    if publication is not None:
        platform = _parsed_platform(publication.platform)
        return _Wanted(publication.reference, publication.manifest_digest, platform)
    path = layout.publication_file(name)
    left = salvage_fields(read_damaged(repository, path) or b"", ("manifestDigest", "platform"))
    digest = left.get("manifestDigest")
    reference = reference_of(repository, path, name)
    platform = _parsed_platform(left.get("platform"))
    if isinstance(digest, str) and is_digest(digest):
        return _Wanted(reference, digest, platform)
    data = read_damaged(repository, layout.manifest_file(name))
    try:
        manifest = parse_published_manifest(data or b"")
        config = read_damaged(repository, layout.config_file(name))
        if config is not None:
            platform = parse_config(config, manifest.image_id).platform
        return _Wanted(reference, digest_of(data or b""), platform)
    except InvalidManifest:
        return _Wanted(reference, "", platform)


def _retired_platform(repository: Repository, entry: ScheduledRemoval) -> Platform:
    path = f"{layout.retired_directory(entry.manifest_digest)}/{layout.PUBLICATION_FILE}"
    left = salvage_fields(read_damaged(repository, path) or b"", ("platform",))
    return _parsed_platform(left.get("platform"))


def _parsed_platform(text: object) -> Platform:
    try:
        return Platform.parse(text) if isinstance(text, str) else _DEFAULT_PLATFORM
    except ValueError:
        return _DEFAULT_PLATFORM
