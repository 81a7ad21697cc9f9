"""What an ingest would do: behind `publisher plan`. Manifests are read, layers are not."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from publisher.errors import PublisherError
from publisher.ingest.report import Status
from publisher.ingest.run import wanted_publications
from publisher.ingest.wanted import check_pins, is_current, widened
from publisher.oci.reference import ImageReference
from publisher.repository import Repository
from publisher.repository.reading import load_publication, load_schedule
from publisher.sources.image import fetch_images
from publisher.sources.open import Sources
from publisher.sources.tags import expand_wish
from publisher.tree import layout
from publisher.tree.pins import ImagePinned
from publisher.wishlist import Places
from publisher.wishlist.model import Request


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """What would become of one wished image.

    `new_layers` maps the digests of layers that would be fetched to their sizes in bytes;
    `known_layers` counts those that are there already.
    """

    name: str
    reference: str
    status: Status
    new_layers: dict[str, int]
    known_layers: int = 0
    error: str = ""


def plan(
    requests: Sequence[Request],
    repository: Repository,
    sources: Sources,
    now: datetime,
    *,
    jobs: int = 4,
) -> list[PlannedImage]:
    """What `ingest` would do with the same arguments at `now`, in the order of the requests."""
    scheduled = frozenset((e.name, e.manifest_digest) for e in load_schedule(repository).entries)
    planning = partial(_plan_wish, repository, sources, now, scheduled, Places())
    with ThreadPoolExecutor(jobs) as pool:
        planned = pool.map(planning, requests)
        return [image for images in planned for image in images]


def _plan_wish(
    repository: Repository,
    sources: Sources,
    now: datetime,
    scheduled: frozenset[tuple[str, str]],
    places: Places,
    request: Request,
) -> list[PlannedImage]:
    wish = request.wish
    if wish.has_expired(now):
        return [PlannedImage(str(wish), str(wish.image), Status.EXPIRED, {})]
    try:
        references = expand_wish(sources, wish)
    except (PublisherError, OSError) as error:
        return [_failed(str(wish), wish.image, error)]
    images = []
    for reference in references:
        name = str(reference)
        try:
            name = layout.public_name(reference, wish.name)
            if places.claim(name, reference, wish, request.wish_list) is None:
                continue
            images.append(_plan_image(repository, sources, now, scheduled, request, reference))
        except ImagePinned:
            images.append(PlannedImage(name, str(reference), Status.PINNED, {}))
        except (PublisherError, OSError) as error:
            images.append(_failed(name, reference, error))
    return images


def _plan_image(
    repository: Repository,
    sources: Sources,
    now: datetime,
    scheduled: frozenset[tuple[str, str]],
    request: Request,
    reference: ImageReference,
) -> PlannedImage:
    source = sources.open(reference)
    digest = source.resolve()
    wishes = wanted_publications(request, reference, digest)
    found = {w.name: load_publication(repository, w.name) for _, w in wishes}
    wanted = [(p, widened(found[w.name], w)) for p, w in wishes]
    name = wanted[0][1].name
    if all(is_current(repository, found[w.name], w, scheduled) for _, w in wanted):
        return PlannedImage(name, str(reference), Status.UNCHANGED, {})
    check_pins(repository, (publication.name for _, publication in wanted), digest, now)
    images = fetch_images(source, list(dict.fromkeys(p for p, _ in wanted)), digest)
    sizes = {layer.digest: layer.size for image in images for layer in image.manifest.layers}
    new = {d: size for d, size in sizes.items() if not repository.has_layer(d)}
    published = found[name]
    if published is None:
        status = Status.PUBLISHED
    elif published.manifest_digest != images[0].document.digest:
        status = Status.UPDATED
    else:
        status = Status.RECORDED
    return PlannedImage(name, str(reference), status, new, len(sizes) - len(new))


def _failed(name: str, reference: ImageReference, error: Exception) -> PlannedImage:
    return PlannedImage(name, str(reference), Status.FAILED, {}, error=str(error))
