"""Pushing thin images: to a registry, into a container engine, or through one to a registry.

An ingest pushes them after the commit. If a push fails, the next run tries again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from publisher.errors import InvalidReference, failure_text
from publisher.ingest.thin_images import build_thin, wanted_terms, write_records
from publisher.ingest.wanted import RequestedImage
from publisher.oci.reference import ImageReference, Transport, parse_reference
from publisher.repository import Repository, RepositoryChanged, RepositoryError
from publisher.repository.reading import load_thin_record
from publisher.sources.open import Sources
from publisher.thin import ThinImageError
from publisher.thin.image import ThinSet
from publisher.thin.save import engine_archive
from publisher.tree.thin_image import ThinRecord, ThinTerms
from publisher.wishlist import render_output_format
from publisher.wishlist.places import places_of

if TYPE_CHECKING:
    from publisher.sources.registry.upload import RegistryDestination


@dataclass(frozen=True, slots=True)
class Pushed:
    """A thin image at its destination; `sent` is False if the tag named it already."""

    reference: str
    digest: str
    sent: bool


class ThinPushes:
    """Pushes the thin images of one run, and collects their records. Safe for threads."""

    def __init__(
        self, repository: Repository, sources: Sources, now: Callable[[], datetime]
    ) -> None:
        self._repository = repository
        self._sources = sources
        self._now = now
        self._lock = threading.Lock()
        self._pushed: list[tuple[str, ThinRecord]] = []

    def outdated(self, image: RequestedImage, digest: str) -> ThinTerms | None:
        """Return what has to be pushed for a published image; None if its thin image is current.

        `digest` is what the image's reference was resolved to. It is compared with the
        record of the last successful push, without requests to the registry.
        """
        wish = image.request.wish
        if "thin" not in wish.outputs or wish.thin is None:
            return None
        text = render_output_format(wish.thin, image.reference, digest, wish.name)
        wanted = wanted_terms(self._repository, _places(image), parse_reference(text))
        found = load_thin_record(self._repository, image.name)
        return None if found is not None and found.terms == wanted else wanted

    def push(self, image: RequestedImage, wanted: ThinTerms) -> None:
        """Push the thin image; raise PublisherError if that fails."""
        thin = build_thin(self._repository, _places(image))
        pushed = push_thin(thin, wanted.reference, self._sources)
        with self._lock:
            record = ThinRecord.of(wanted, pushed.digest, self._now())
            self._pushed.append((image.name, record))

    def record(self) -> dict[str, str]:
        """Record the pushed images in one transaction; if that fails, return the reason by image.

        Raises RepositoryError if the repository itself cannot be used.
        """
        with self._lock:
            pushed, self._pushed = self._pushed, []
        try:
            write_records(self._repository, pushed)
        except Exception as error:
            if isinstance(error, RepositoryError) and not isinstance(error, RepositoryChanged):
                raise
            why = failure_text(error, "the records of thin images")
            return {name: why for name, _ in pushed}
        return {}


def _places(image: RequestedImage) -> list[str]:
    """Return the names of the images that the thin image consists of: one for each platform."""
    names = [name for _, name in places_of(image.request.wish, image.reference)]
    return names[1:] or names


def push_thin(
    thin: ThinSet, text: str, sources: Sources, *, through_engine: bool = False
) -> Pushed:
    """Push a thin image to the reference `text`.

    Args:
        thin: The thin image; an engine receives the one of the first platform.
        text: `HOST/PATH/NAME:TAG` of a registry, or `docker-daemon:NAME:TAG` of the engine.
        sources: How registries and the engine are reached.
        through_engine: Have the engine push to the registry, with the engine's credentials.

    Raises:
        InvalidReference: `text` names neither a registry nor an engine.
        SourceError: The registry or engine cannot be reached, or refuses.
        ThinImageError: The tag names another manifest after the push.
    """
    reference = _destination(text)
    tag = reference.tag or "latest"
    if reference.transport is Transport.DOCKER_DAEMON:
        _load(thin, sources, f"{reference.repository}:{tag}")
        return Pushed(str(reference), thin.top.digest, True)
    if through_engine:
        repository = f"{reference.registry}/{reference.repository}"
        _load(thin, sources, f"{repository}:{tag}")
        sources.engine().push(repository, tag)
        return Pushed(str(reference), thin.top.digest, True)
    sent = push_set(thin, sources.destination(reference), tag)
    return Pushed(str(reference), thin.top.digest, sent)


def push_set(thin: ThinSet, destination: RegistryDestination, tag: str) -> bool:
    """Push the thin image under `tag`; return False if the tag named it already.

    Only blobs that the registry lacks are sent. Raises ThinImageError if the tag names another
    manifest afterwards.
    """
    if destination.manifest_digest(tag) == thin.top.digest:
        return False
    for image in thin.images:
        for blob in (image.config, image.layer):
            if not destination.has_blob(blob.digest):
                destination.put_blob(blob)
        if image.manifest != thin.top:
            destination.put_manifest(image.manifest, image.manifest.digest)
    destination.put_manifest(thin.top, tag)
    found = destination.manifest_digest(tag)
    if found != thin.top.digest:
        raise ThinImageError(
            f"cannot push {destination.name}:{tag}",
            why=f"{thin.top.digest} was accepted, but the tag names {found or 'nothing'}",
            hint="check whether another program pushes this tag, then push again",
        )
    return True


def _load(thin: ThinSet, sources: Sources, name: str) -> None:
    sources.engine().load(engine_archive(thin.images[0], name), name)


def _destination(text: str) -> ImageReference:
    reference = parse_reference(text)
    if reference.transport not in (Transport.REGISTRY, Transport.DOCKER_DAEMON):
        raise InvalidReference(
            f"cannot push to {text!r}",
            why="it names neither a registry nor an engine",
            hint="write HOST/PATH/NAME:TAG or docker-daemon:NAME:TAG; files are for --save",
        )
    if reference.digest is not None:
        raise InvalidReference(
            f"cannot push to {text!r}",
            why="the digest of a thin image is not known in advance",
            hint="name a tag instead of a digest",
        )
    return reference
