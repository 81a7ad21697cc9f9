"""Pushing thin images: to a registry, into a container engine, or through one to a registry.

An ingest pushes them after the commit. If a push fails, the next run tries again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.errors import InvalidReference
from publisher.lazy import dataclass
from publisher.oci.reference import ImageReference, Transport, parse_reference
from publisher.sources.open import Sources
from publisher.thin import ThinImageError
from publisher.thin.image import ThinSet
from publisher.thin.save import engine_archive

if TYPE_CHECKING:
    from publisher.sources.registry.upload import RegistryDestination


@dataclass(frozen=True, slots=True)
class Pushed:
    """A thin image at its destination; `sent` is False if the tag named it already."""

    reference: str
    digest: str
    sent: bool


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
        sources.require_permitted(reference)
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
