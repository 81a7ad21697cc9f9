"""Thin images of published images: the use case behind `publisher thin`, and a step of ingest.

A thin image is built from what is published alone. It therefore names only what is visible, and a
push that failed can be repeated without requests to the registry of the original.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from publisher.errors import InvalidReference
from publisher.ingest.thin_files import engine_files
from publisher.lazy import dataclass
from publisher.oci.config import parse_config
from publisher.oci.manifest import distinct_from_top, manifest_annotations
from publisher.oci.reference import ImageReference, Transport, parse_reference
from publisher.repository import Repository
from publisher.repository.damaged import read_damaged
from publisher.repository.published import find_name, load_image, published_places
from publisher.thin import ThinImageError
from publisher.thin.image import Original, ThinImage, ThinSet, build_image, build_set
from publisher.thin.recipe import VERSION, base_url, flat_recipe, layered_recipe
from publisher.thin.save import save_archive, save_layout
from publisher.tree import layout
from publisher.tree.publication import Publication
from publisher.tree.record import Unreadable
from publisher.tree.thin_image import ThinRecord, ThinTerms


@dataclass(frozen=True, slots=True)
class _Published:
    """The published metadata of one image."""

    original: Original
    layers: tuple[str, ...]
    image_id: str
    publication: Publication | None


def build_thin(repository: Repository, names: Sequence[str], *, flat: bool = False) -> ThinSet:
    """Return the thin image of the images published as `names`, which differ in their platform.

    `flat`: the recipe names the flat image instead of the layers.
    """
    url = _base_url(repository)
    images: list[tuple[Original, ThinImage]] = []
    source_digest = ""
    for name in names:
        found = _load(repository, name)
        origin = _origin(found.original)
        if flat and not repository.exists(layout.flat_image(found.image_id)):
            raise ThinImageError(
                f"cannot make a flat recipe of {name}",
                why="it is published without a flat image",
                hint="add flat to the outputs of its wish",
            )
        recipe = (
            flat_recipe(origin, url, found.image_id)
            if flat
            else layered_recipe(origin, url, found.layers)
        )
        files = engine_files(repository, found.layers, found.original.config.container)
        images.append((found.original, build_image(found.original, recipe, files)))
        source_digest = found.publication.source_digest if found.publication else ""
    return build_set(images, images[0][0].name, source_digest)


def names_by_platform(repository: Repository, text: str) -> list[str]:
    """Return the names under which the image `text` is published, one for each of its platforms."""
    name = find_name(repository, text)
    found = load_image(repository, name).publication
    if found is None:
        return [name]
    records = [
        (place, load_image(repository, place).publication)
        for place in published_places(repository, name)
        if place != name
    ]
    places = [n for n, each in records if each and each.source_digest == found.source_digest]
    return places if len(places) > 1 else [name]


def save_thin(thin: ThinSet, text: str) -> str:
    """Save as `oci:DIRECTORY[:TAG]` or `docker-archive:FILE[:NAME:TAG]`; return what is written."""
    reference = parse_reference(text)
    path = Path(reference.location)
    if reference.transport is Transport.OCI:
        save_layout(thin, path, reference.tag or "latest")
    elif reference.transport is Transport.DOCKER_ARCHIVE:
        name = f"{reference.repository}:{reference.tag}" if reference.repository else ""
        save_archive(thin, path, name)
    else:
        raise InvalidReference(
            f"cannot save to {text!r}",
            why="it names neither an OCI layout nor an archive",
            hint="write oci:DIRECTORY:TAG or docker-archive:FILE:NAME:TAG",
        )
    return str(reference)


def wanted_terms(
    repository: Repository, names: Sequence[str], reference: ImageReference
) -> ThinTerms:
    """Return what the thin image `reference` of the images `names` depends on."""
    publications = [_publication(repository, name) for name in names]
    return ThinTerms(
        reference=str(reference),
        source_digest=publications[0].source_digest,
        platforms=tuple(publication.platform for publication in publications),
        base_url=_base_url(repository),
        recipe_version=VERSION,
    )


def write_records(repository: Repository, records: Sequence[tuple[str, ThinRecord]]) -> None:
    """Record what was pushed, by the names of the originals, in one transaction."""
    if not records:
        return
    with repository.transaction("recording thin images") as transaction:
        with transaction.exclusive():
            for name, record in records:
                # An image that was removed in the meantime needs no record.
                if repository.exists(layout.manifest_file(name)):
                    transaction.replace(layout.thin_file(name), record.to_bytes())
                    transaction.record(name, "thin image pushed", record.digest)
            transaction.commit()


def _publication(repository: Repository, name: str) -> Publication:
    found = load_image(repository, name)
    if found.publication is None:
        raise ThinImageError(f"cannot make a thin image of {name}", why=found.problem)
    return found.publication


def _load(repository: Repository, name: str) -> _Published:
    found = load_image(repository, name)
    data = read_damaged(repository, layout.config_file(name))
    manifest = read_damaged(repository, layout.manifest_file(name))
    if found.manifest is None or not data or not manifest:
        why = "its config is not in the repository"
        if isinstance(data, Unreadable):
            why = f"its config: {data.why}"
        raise ThinImageError(
            f"cannot make a thin image of {name}",
            why=found.problem or why,
            hint="publish it again",
        )
    record = found.publication
    original = Original(
        name=_original_name(name, record),
        digest=found.manifest_digest,
        media_type=found.manifest.media_type,
        config=parse_config(data, found.manifest.image_id),
        config_data=data,
        annotations=manifest_annotations(manifest),
    )
    digests = [layer.digest for layer in found.manifest.layers]
    layers = tuple(digests[number] for number in distinct_from_top(digests))
    return _Published(original, layers, found.manifest.image_id, record)


def _original_name(name: str, publication: Publication | None) -> str:
    """Return the original's reference without its digest; without a registry, its public name."""
    if publication is not None:
        reference = parse_reference(publication.reference)
        if reference.transport is Transport.REGISTRY:
            scheme = "http://" if reference.plain_http else ""
            tag = f":{reference.tag}" if reference.tag else ""
            return f"{scheme}{reference.registry}/{reference.repository}{tag}"
    return name.partition("@")[0]


def _origin(original: Original) -> str:
    name = original.name
    if not name.startswith(("http://", f"{layout.LOCAL}/")):
        name = f"https://{name}"
    return f"{name}@{original.digest}"


def _base_url(repository: Repository) -> str:
    url = repository.url
    location = url.location if url.kind == "cvmfs" else os.path.abspath(url.location)
    return base_url(url.kind, location)
