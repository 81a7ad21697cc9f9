"""Compare what a wish requests with what is published, for `ingest`, `plan` and `check`.

`ingest` and `plan` use `compare`. Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from publisher.errors import PublisherError
from publisher.ingest.admission import Admission, RunQuota
from publisher.layers.policy import Limits
from publisher.lazy import dataclass
from publisher.oci.digest import digest_of
from publisher.oci.platform import Platform
from publisher.oci.reference import ImageReference, Transport
from publisher.repository import Repository, RepositoryChanged
from publisher.repository.records import RecordSet
from publisher.sources import Source
from publisher.sources.open import Sources
from publisher.sources.tags import expand_wish
from publisher.tree import layout
from publisher.tree.pins import ImagePinned, check_pin
from publisher.tree.publication import Publication, Terms
from publisher.wishlist import OUTPUTS
from publisher.wishlist.model import Request
from publisher.wishlist.places import places_of

if TYPE_CHECKING:
    from publisher.oci.image import PlatformImage


class ConcurrentlyPublished(RepositoryChanged):
    """Another run published under the image's name in the meantime: resolve the image again."""


class NotLocked(PublisherError):
    """The lock has no digest for an image, or one that its source cannot return any more."""


_LATEST_ONLY = (Transport.DOCKER_DAEMON, Transport.DOCKER_ARCHIVE)
"""The transports that have one image by name, and none by digest."""


@dataclass(frozen=True, slots=True)
class RequestedImage:
    """One image of a wish, and its public `name`."""

    request: Request
    reference: ImageReference
    name: str


@dataclass(frozen=True, slots=True)
class WantedImage:
    """An image to be published under one name, before its manifest is fetched."""

    name: str
    reference: str
    source_digest: str
    platform: Platform
    outputs: tuple[str, ...]
    terms: Terms


@dataclass(frozen=True, slots=True)
class Item:
    """One image to be published under one name.

    `before` is the record of that name from before the reference was resolved.
    """

    wanted: WantedImage
    image: PlatformImage
    before: Publication | None

    @property
    def name(self) -> str:
        """The public name."""
        return self.wanted.name

    @property
    def manifest_digest(self) -> str:
        """The digest of the manifest that is to be published."""
        return self.image.document.digest

    @property
    def content(self) -> list[str]:
        """The paths of the image's layer trees and, if requested, its flat image."""
        paths = [layout.layer_directory(layer.digest) for layer in self.image.manifest.layers]
        if "flat" in self.wanted.outputs:
            paths.append(layout.flat_image(self.image.manifest.image_id))
        return paths

    def publication(self, terms: Terms, now: datetime) -> Publication:
        """Return the record of the image with these terms."""
        return Publication(
            name=self.name,
            reference=self.wanted.reference,
            source_digest=self.wanted.source_digest,
            manifest_digest=self.manifest_digest,
            image_id=self.image.manifest.image_id,
            platform=str(self.wanted.platform),
            outputs=self.wanted.outputs,
            published_at=now,
            wish_list=terms.wish_list,
            owner=terms.owner,
            note=terms.note,
            grace_seconds=terms.grace_seconds,
            other_lists=terms.other_lists,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """An image at its source, compared with the image that is published under its name.

    Attributes:
        source: The source of the image.
        digest: The digest that the reference was resolved to.
        wanted: The images to be published, the one with the plain name first.
        found: The records of the published images, in the same order.
        is_current: Whether the wanted images are published, so that there is nothing to do.
    """

    source: Source
    digest: str
    wanted: tuple[WantedImage, ...]
    found: tuple[Publication | None, ...]
    is_current: bool

    def fetch(self, image: RequestedImage, limits: Limits, admission: Admission) -> list[Item]:
        """Fetch manifests and configs.

        Raises:
            LimitExceeded: The image is too large.
            PolicyViolated: A policy does not allow it.
        """
        from publisher.sources.image import fetch_images  # not needed for an unchanged image

        images = fetch_images(self.source, [each.platform for each in self.wanted], self.digest)
        for each in images:
            check_size(each, limits)
        admission.check_images(image.request.wish, image.reference, self.source, images)
        items = zip(self.wanted, images, self.found, strict=True)
        return [Item(wanted, image, found) for wanted, image, found in items]


def requested_references(request: Request, sources: Sources) -> Sequence[ImageReference]:
    """Return the images of a wish: those of the lock, or those that it requests now.

    Raises:
        NotLocked: The lock has none.
        PublisherError: The tags cannot be listed, or none matches: see `expand_wish`.
    """
    if request.locked is None:
        return expand_wish(sources, request.wish)
    if not request.locked:
        raise NotLocked(
            f"cannot publish {request.wish}",
            why="the lock has no digest for it: it could not be resolved when the lock was written",
            hint="run `publisher lock` again once the image exists",
        )
    return list(request.locked)


def compare(
    repository: Repository,
    sources: Sources,
    image: RequestedImage,
    now: datetime,
    is_new: Callable[[], None] = lambda: None,
) -> Comparison:
    """Resolve an image at its source, and compare it with the published image.

    Args:
        repository: Where it is published.
        sources: Where it is requested from.
        image: The image.
        now: The time of the comparison.
        is_new: Called, before the source is asked, if nothing is published under a name of it.

    Raises:
        ImagePinned: The image has changed at its source, and what is published is pinned.
        SourceError: The source cannot be read.
        InvalidRecord: A record that has to be compared is damaged.
    """
    records = RecordSet(repository)
    wish, reference = image.request.wish, image.reference
    places = places_of(wish, reference)
    # The records are read first: another run may publish a newer image during the request.
    found = tuple(records.readable_publication(name) for _, name in places)
    if None in found:
        is_new()
    source = sources.open(reference)
    digest = _digest(image, source)
    terms = Terms(
        image.request.wish_list,
        wish.owner or "",
        wish.note or "",
        int(wish.grace.total_seconds()),
    )
    wanted = tuple(
        with_outputs_of(
            before, WantedImage(name, str(reference), digest, platform, wish.outputs, terms)
        )
        for (platform, name), before in zip(places, found, strict=True)
    )
    current = all(is_current(records, *pair) for pair in zip(found, wanted, strict=True))
    if not current:
        _check_pins(records, found, digest, now)
    return Comparison(source, digest, wanted, found, current)


def _digest(image: RequestedImage, source: Source) -> str:
    """Return the digest of the lock, without a request, or the one that the source names now."""
    if image.request.locked is None:
        return source.resolve()
    digest = image.request.locked[image.reference]
    if image.reference.transport in _LATEST_ONLY and source.resolve() != digest:
        raise NotLocked(
            f"cannot publish {image.reference} as it is locked",
            why=f"it is another image now, and {image.reference.transport}: has no earlier ones",
            hint="run `publisher lock` again to lock the present image",
        )
    return digest


def is_current(records: RecordSet, found: Publication | None, wanted: WantedImage) -> bool:
    """Return whether `wanted` is published, according to the records and links.

    `found` is the record of its name. An image on the remove schedule is not current: it has to be
    taken off the schedule.
    """
    return (
        found is not None
        and found.source_digest == wanted.source_digest
        and (found.platform, found.outputs) == (str(wanted.platform), wanted.outputs)
        and found.terms.same_as(joined_terms(found, wanted))
        and records.schedule.find(found.name, found.manifest_digest) is None
        and _has_metadata(records, found)
        and _has_further_outputs(records, found)
        and ("flat" not in wanted.outputs or _has_flat_image(records, found))
    )


def has_content(repository: Repository, item: Item) -> bool:
    """Return whether all trees of `item` are published: only records may be missing."""
    return all(map(repository.exists, item.content))


def counted(
    quota: RunQuota | None, image: RequestedImage, sizes: Mapping[str, int]
) -> AbstractContextManager[Callable[[], None]]:
    """Count an image for the quota of a run; see `RunQuota.counted`. `sizes` are of its layers."""
    if quota is None:
        return nullcontext(lambda: None)
    return quota.counted(image.name, image.request.wish_list, sizes)


def check_place(records: RecordSet, item: Item) -> None:
    """Raise ConcurrentlyPublished if another run published under the name of `item` meanwhile.

    The reference may have been resolved hours ago, and the other run may have resolved it later, so
    that its image is newer. Or it published the same image with additional outputs, which `item`
    would remove.
    """
    found = records.readable_publication(item.name)
    known = {item.wanted.source_digest} | ({item.before.source_digest} if item.before else set())
    if found is not None and found.source_digest not in known:
        why = f"another run has published {found.source_digest} under this name"
    elif with_outputs_of(found, item.wanted) != item.wanted:
        why = "another run has published it with other outputs"
    else:
        return
    raise ConcurrentlyPublished(f"cannot publish {item.name}", why=why, hint="run it again")


def check_size(image: PlatformImage, limits: Limits) -> None:
    """Raise LimitExceeded if an image's layers, as downloaded, are more than an image may hold."""
    limits.check_image(f"cannot publish manifest {image.document.digest}", 0, image.manifest.size)


def with_outputs_of(found: Publication | None, wanted: WantedImage) -> WantedImage:
    """Return `wanted` with the outputs that other lists request according to `found`."""
    if found is None or not found.wish_lists - wanted.terms.wish_lists:
        return wanted
    outputs = {*found.outputs, *wanted.outputs}
    return replace(wanted, outputs=tuple(output for output in OUTPUTS if output in outputs))


def joined_terms(found: Publication | None, wanted: WantedImage) -> Terms:
    """Return the terms of an image for all lists that request it, as recorded and as wanted.

    The longest of their grace periods applies; owner and note are those of the first list.
    """
    terms = wanted.terms
    if found is None:
        return terms
    lists = found.wish_lists | terms.wish_lists
    first = terms.wish_list if terms.wish_list in lists else min(lists, default="")
    first = found.wish_list if found.wish_list in lists else first
    is_alone = not lists - terms.wish_lists
    is_first = first == terms.wish_list
    return Terms(
        wish_list=first,
        owner=terms.owner if is_first else found.owner,
        note=terms.note if is_first else found.note,
        grace_seconds=(
            terms.grace_seconds if is_alone else max(found.grace_seconds, terms.grace_seconds)
        ),
        other_lists=tuple(sorted(lists - {first})),
    )


def _check_pins(
    records: RecordSet, found: Iterable[Publication | None], source_digest: str, now: datetime
) -> None:
    """Raise ImagePinned if one of `found` is pinned, and its source names something else now."""
    for publication in found:
        if publication is not None and publication.source_digest != source_digest:
            try:
                check_pin(records.pins, publication.name, publication.manifest_digest, now)
            except ImagePinned as error:
                error.source_digest = source_digest
                raise


def _has_metadata(records: RecordSet, found: Publication) -> bool:
    """Return whether manifest and config are published and have the recorded digests."""
    manifest = records.manifest(found.name)
    config = records.file(layout.config_file(found.name))
    return (
        manifest is not None
        and manifest.digest == found.manifest_digest
        and config is not None
        and digest_of(config, found.image_id.partition(":")[0]) == found.image_id
    )


def _has_further_outputs(records: RecordSet, found: Publication) -> bool:
    """Return whether the outputs are current that few images have."""
    if "sbom" in found.outputs:
        from publisher.sbom.output import has_files

        if not has_files(records.repository, found.name):
            return False
    if not {"podman", "squashfs"} & set(found.outputs):
        return True
    from publisher.runtimes import squashfs
    from publisher.runtimes.podman import store

    return store.is_stored(records.repository, found) and squashfs.is_current(records, found)


def _has_flat_image(records: RecordSet, found: Publication) -> bool:
    target = layout.link_target(found.name, found.image_id)
    flat = layout.flat_image(found.image_id)
    return records.link(found.name) == target and records.repository.exists(flat)
