"""Determine what an ingest would do: behind `publisher plan`. Only manifests are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from publisher.errors import failure_text
from publisher.ingest.admission import Admission, RunQuota
from publisher.ingest.report import Status
from publisher.ingest.wanted import Comparison, RequestedImage, compare, counted
from publisher.ingest.work import WishWork, for_all_images
from publisher.layers.policy import Limits
from publisher.lazy import dataclass
from publisher.problems import Problem
from publisher.repository import Repository
from publisher.repository.records import RecordSet
from publisher.sources.open import Sources
from publisher.sources.wish_lists import list_identity
from publisher.tree.pins import ImagePinned
from publisher.wishlist import Places
from publisher.wishlist.model import Request


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """The expected result of an ingest for one requested image.

    `new_layers` maps the digests of layers that would be fetched to their sizes in bytes;
    `known_layers` counts those that the repository has. `line` and `column` are the place of the
    wish in `wish_list`, from 1; 0 without a list.
    """

    name: str
    reference: str
    status: Status
    new_layers: dict[str, int]
    known_layers: int = 0
    error: str = ""
    wish_list: str = ""
    line: int = 0
    column: int = 0


def plan(
    requests: Sequence[Request],
    repository: Repository,
    sources: Sources,
    now: datetime,
    *,
    jobs: int = 4,
    limits: Limits | None = None,
    admission: Admission | None = None,
    quota: RunQuota | None = None,
) -> list[PlannedImage]:
    """Return what `ingest` would do with the same arguments at `now`, in the requests' order.

    Args:
        requests: The wishes, each with its list.
        repository: The repository, which need not exist yet.
        sources: Where the images come from.
        now: The moment of the planned ingest.
        jobs: How many images are processed at a time.
        limits: How much an image may hold; by default the usual limits.
        admission: Which wishes and images may be published; by default all.
        quota: How much the images may use, as far as it is known before they are downloaded.

    Raises:
        RepositoryError: The repository itself cannot be used.
        UnsupportedRecord: Another program, or a later release, wrote the remove schedule.
    """
    RecordSet(repository).schedule.check()
    planning = _Planning(
        repository, sources, now, limits or Limits(), admission or Admission(), quota
    )
    places = Places()
    wishes = (_WishPlan(planning, request, places) for request in requests)
    results = for_all_images(wishes, sources, jobs=jobs, admission=planning.admission)
    return results.items


def unusable_image(problem: Problem) -> PlannedImage:
    """Return the result for a wish with an error, which an ingest does not work on."""
    return PlannedImage(
        problem.subject,
        problem.subject,
        Status.FAILED,
        {},
        error=problem.text,
        wish_list=list_identity(problem.file),
        line=problem.line,
        column=problem.column,
    )


class _WishPlan(WishWork[PlannedImage]):
    """Plans all images of one wish."""

    def __init__(self, planning: _Planning, request: Request, places: Places) -> None:
        super().__init__(request, places)
        self._planning = planning

    def skip(self) -> PlannedImage | None:
        wish = self.request.wish
        if not wish.has_expired(self._planning.now):
            return None
        return self._with_place(PlannedImage(str(wish), str(wish.image), Status.EXPIRED, {}))

    def act(self, image: RequestedImage) -> PlannedImage:
        return self._with_place(self._planning.plan_image(image))

    def failed(self, name: str, reference: str, error: Exception) -> PlannedImage:
        why = failure_text(error, name)
        return self._with_place(PlannedImage(name, reference, Status.FAILED, {}, error=why))

    def _with_place(self, image: PlannedImage) -> PlannedImage:
        wish_list, wish = self.request.wish_list, self.request.wish
        return replace(image, wish_list=wish_list, line=wish.line, column=wish.column)


@dataclass(frozen=True, slots=True)
class _Planning:
    repository: Repository
    sources: Sources
    now: datetime
    limits: Limits
    admission: Admission
    quota: RunQuota | None

    def plan_image(self, image: RequestedImage) -> PlannedImage:
        reference = str(image.reference)
        try:
            comparison = compare(self.repository, self.sources, image, self.now)
        except ImagePinned:
            return PlannedImage(image.name, reference, Status.PINNED, {})
        if comparison.is_current:
            return PlannedImage(image.name, reference, Status.UNCHANGED, {})
        items = comparison.fetch(image, self.limits, self.admission)
        sizes = {layer.digest: layer.size for i in items for layer in i.image.manifest.layers}
        new = {d: size for d, size in sizes.items() if not self.repository.has_layer(d)}
        status = _status(comparison, items[0].manifest_digest)
        with counted(self.quota, image, sizes):
            return PlannedImage(image.name, reference, status, new, len(sizes) - len(new))


def _status(comparison: Comparison, manifest_digest: str) -> Status:
    published = comparison.found[0]
    if published is None:
        return Status.PUBLISHED
    moved = published.manifest_digest != manifest_digest
    return Status.UPDATED if moved else Status.RECORDED
