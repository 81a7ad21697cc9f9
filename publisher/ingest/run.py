"""Publish what is wished: the use case behind `publisher ingest`.

For each wish: ask its source what the reference names now; if that is what is published, there is
nothing to do. Otherwise fetch manifest and config, the layers that the repository does not have,
merge all layers into a flat image, and make everything visible in one transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from publisher.errors import PublisherError
from publisher.ingest.layers import Interrupted, LayerFetcher
from publisher.ingest.notices import Notices
from publisher.ingest.publish import publish, wait_for_others
from publisher.ingest.report import Outcome, Progress, Report, Silent, Status
from publisher.ingest.thin import ThinPushes
from publisher.ingest.wanted import (
    Item,
    PublishedMeanwhile,
    check_pins,
    has_content,
    is_current,
    widened,
)
from publisher.layers.policy import Policy
from publisher.layers.unpack import LayerSummary
from publisher.oci.image import PlatformImage
from publisher.oci.platform import Platform
from publisher.oci.reference import ImageReference
from publisher.repository import Repository, RepositoryChanged, RepositoryError
from publisher.repository.reading import load_publication, load_schedule
from publisher.sources import Source
from publisher.sources.image import fetch_images
from publisher.sources.open import Sources
from publisher.sources.tags import expand_wish
from publisher.tree import layout
from publisher.tree.pins import ImagePinned
from publisher.tree.publication import Publication
from publisher.wishlist import Places
from publisher.wishlist.model import Request
from publisher.wishlist.places import places_of

_PUBLISH_TRIES = 3


@dataclass(slots=True)
class _Run:
    """What all images of one run share."""

    repository: Repository
    sources: Sources
    layers: LayerFetcher
    progress: Progress
    stop: threading.Event
    now: Callable[[], datetime]
    scheduled: frozenset[tuple[str, str]]
    thin: ThinPushes
    notices: Notices
    cut_short: bool = False
    places: Places = field(default_factory=Places)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def ingest(
    requests: Sequence[Request],
    repository: Repository,
    sources: Sources,
    *,
    jobs: int = 4,
    policy: Policy | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    now: Callable[[], datetime] = _utc_now,
) -> Report:
    """Publish every requested image; one that fails never stops the others.

    `jobs` images, and as many layers, are worked on at a time. Once `stop` is set nothing new is
    begun, running downloads end at their next chunk, `sources` are closed, and the report says so.
    Raises RepositoryError when the repository itself cannot be used; everything else is an outcome.
    """
    began = time.monotonic()
    progress = progress or Silent()
    stop = stop or threading.Event()
    notices = Notices(repository.url, progress)
    fetcher = LayerFetcher(repository, policy or Policy(), jobs, progress, stop, notices.refused)
    scheduled = frozenset((e.name, e.manifest_digest) for e in load_schedule(repository).entries)
    thin = ThinPushes(repository, sources, now)
    run = _Run(repository, sources, fetcher, progress, stop, now, scheduled, thin, notices)
    work = _Work(requests)
    progress.run_started(len(requests))
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="image")
    try:
        # One future per worker: with one per wish, most of a long list's memory would be futures.
        workers = [pool.submit(_work_off, run, work) for _ in range(min(jobs, len(requests)))]
        _wait_for(workers, stop, sources)
        for worker in workers:
            worker.result()
    finally:
        stop.set()
        pool.shutdown()
        fetcher.close()
    thin.record()
    # A wish that was never begun was not even looked at: it has no outcome.
    outcomes = [outcome for done in work.outcomes if done is not None for outcome in done]
    cut_short = run.cut_short or None in work.outcomes
    return Report(tuple(outcomes), time.monotonic() - began, cut_short)


class _Work:
    """The requests that are not begun yet, and the outcomes of the others in the same order."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.outcomes: list[list[Outcome] | None] = [None] * len(requests)
        self._left = iter(enumerate(requests))
        self._lock = threading.Lock()

    def take(self) -> tuple[int, Request] | None:
        """The next request with its place, or None at the end."""
        with self._lock:
            return next(self._left, None)


def _work_off(run: _Run, work: _Work) -> None:
    """Take one request after the other, until there is none or the run stops."""
    while not run.stop.is_set() and (taken := work.take()) is not None:
        number, request = taken
        work.outcomes[number] = _ingest_wish(run, request)
        run.progress.request_done()


def _wait_for(workers: Collection[Future[None]], stop: threading.Event, sources: Sources) -> None:
    """Wait for all; on `stop`, or when the repository itself fails, have no other wish begun."""
    pending = set(workers)
    while pending:
        # Woken regularly, since a signal handler can only set `stop`.
        done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
        if stop.is_set() or any(worker.exception() is not None for worker in done):
            stop.set()
            sources.close()  # a registry may have told us to wait for minutes


def _ingest_wish(run: _Run, request: Request) -> list[Outcome]:
    """All images of one wish: one, or as many as its tag patterns match."""
    wish = request.wish
    if wish.has_expired(run.now()):
        expired = Outcome(
            str(wish),
            str(wish.image),
            Status.EXPIRED,
            request.wish_list,
            remark=f"the wish has expired on {wish.expires}",
        )
        run.progress.image_done(expired)
        return [expired]
    try:
        references = expand_wish(run.sources, wish)
    except (PublisherError, OSError) as error:
        if run.stop.is_set():
            run.cut_short = True
            return []
        failure = _failure(str(wish.image), wish.image, request, error)
        run.progress.image_done(failure)
        return [failure]
    outcomes = []
    for reference in references:
        if run.stop.is_set():
            run.cut_short = True
            break
        outcome = _ingest_image(run, request, reference)
        if outcome is not None:
            outcomes.append(outcome)
            run.progress.image_done(outcome)
    return outcomes


def _ingest_image(run: _Run, request: Request, reference: ImageReference) -> Outcome | None:
    name = str(reference)
    try:
        name = layout.public_name(reference, request.wish.name)
        place = run.places.claim(name, reference, request.wish, request.wish_list)
        if place is None:
            return None
        with place.lock:
            outcome = _bring_up_to_date(run, request, reference, name)
            return _push_thin(run, request, reference, outcome)
    except ImagePinned as error:
        return Outcome(name, str(reference), Status.PINNED, request.wish_list, remark=str(error))
    except Interrupted:
        run.cut_short = True
        return None
    except RepositoryChanged as error:
        return _failure(name, reference, request, error)
    except RepositoryError:
        raise  # it would meet every other image as well
    except (PublisherError, OSError) as error:
        if run.stop.is_set():  # it may well be only that
            run.cut_short = True
            return None
        return _failure(name, reference, request, error)


def _push_thin(run: _Run, request: Request, reference: ImageReference, outcome: Outcome) -> Outcome:
    """Bring the thin image up to date; should that fail, what was published stays."""
    publications = wanted_publications(request, reference, outcome.digest)
    names = [publication.name for _, publication in publications]
    try:
        wanted = run.thin.outdated(request.wish, reference, outcome.digest, names)
        if wanted is None:
            return outcome
        run.progress.image_step(outcome.name, "pushing its thin image")
        run.thin.push(wanted, names)
    except RepositoryError:
        raise
    except (PublisherError, OSError) as error:
        return replace(outcome, error=f"its thin image, which the next run tries again: {error}")
    unchanged = outcome.status is Status.UNCHANGED
    return replace(outcome, status=Status.RECORDED) if unchanged else outcome


def _failure(name: str, reference: ImageReference, request: Request, error: Exception) -> Outcome:
    return Outcome(name, str(reference), Status.FAILED, request.wish_list, error=str(error))


def _bring_up_to_date(run: _Run, request: Request, reference: ImageReference, name: str) -> Outcome:
    for _ in range(_PUBLISH_TRIES - 1):
        try:
            return _publish_what_is_named_now(run, request, reference, name)
        except PublishedMeanwhile:
            continue
    return _publish_what_is_named_now(run, request, reference, name)


def _publish_what_is_named_now(
    run: _Run, request: Request, reference: ImageReference, name: str
) -> Outcome:
    run.progress.image_step(name, "resolving")
    before = {
        publication.name: load_publication(run.repository, publication.name)
        for _, publication in wanted_publications(request, reference, "")
    }
    source = run.sources.open(reference)
    digest = source.resolve()
    wanted = [
        (platform, widened(before[publication.name], publication))
        for platform, publication in wanted_publications(request, reference, digest)
    ]
    if all(is_current(run.repository, before[p.name], p, run.scheduled) for _, p in wanted):
        return Outcome(name, str(reference), Status.UNCHANGED, request.wish_list, digest)
    check_pins(run.repository, (p.name for _, p in wanted), digest, run.now())

    run.progress.image_step(name, "fetching")
    images = fetch_images(source, [platform for platform, _ in wanted], digest)
    by_platform = dict(zip((platform for platform, _ in wanted), images, strict=False))
    items = [
        _item(publication, by_platform[p], run.now(), before[publication.name])
        for p, publication in wanted
    ]
    return _fetch_and_publish(run, request, source, items, str(reference), digest)


def _fetch_and_publish(
    run: _Run, request: Request, source: Source, items: list[Item], reference: str, digest: str
) -> Outcome:
    name = items[0].name
    held = {layer.digest: layer.size for i in items for layer in i.image.manifest.layers}
    with run.repository.room_for(held, run.layers.check_stop):
        status, fetched = _fetch_until_published(run, source, items)
    dropped: dict[str, int] = {}
    for summary in fetched:
        for what, count in summary.dropped.items():
            dropped[what] = dropped.get(what, 0) + count
    return Outcome(
        name,
        reference,
        status,
        request.wish_list,
        digest,
        layers_fetched=len(fetched),
        layers_reused=len(held.keys() - {summary.digest for summary in fetched}),
        bytes_fetched=sum(held[summary.digest] for summary in fetched),
        dropped=dropped,
    )


def _fetch_until_published(
    run: _Run, source: Source, items: list[Item]
) -> tuple[Status, list[LayerSummary]]:
    """Publish `items`; and which layers had to be fetched for it."""
    name = items[0].name
    fetched: list[LayerSummary] = []
    for attempt in range(1, _PUBLISH_TRIES + 1):
        # Of an image that is there whole no layer is needed, not even for its index.
        layers = [
            pair
            for item in items
            if not has_content(run.repository, item)
            for pair in zip(item.image.manifest.layers, item.image.config.diff_ids, strict=True)
        ]
        summaries = run.layers.fetch(name, source, layers)
        fetched += summaries
        if run.stop.is_set():
            raise Interrupted("stopped", why="the run was interrupted")
        run.progress.image_step(name, "publishing")
        try:
            status = publish(
                run.repository, items, run.now, f"ingest of {name}", run.notices.refused
            )
            break
        except PublishedMeanwhile:
            raise  # what the source was asked for is not what it would say now
        except OSError as error:
            digests = {layer.digest for item in items for layer in item.image.manifest.layers}
            raise run.layers.space.explained_linking(error, digests) from error
        except RepositoryChanged:
            # Another image is publishing a layer just now, and after that it is there; or a
            # collection took one that nobody used until now, and it has to be fetched again.
            if attempt == _PUBLISH_TRIES:
                raise
            wait_for_others(run.repository, f"ingest of {name}")
    return status, fetched


def wanted_publications(
    request: Request, reference: ImageReference, digest: str
) -> list[tuple[Platform, Publication]]:
    """What will be recorded, as far as it is known before anything is fetched, per place."""
    wish = request.wish
    return [
        (
            platform,
            Publication(
                name=name,
                reference=str(reference),
                source_digest=digest,
                manifest_digest="",
                image_id="",
                platform=str(platform),
                outputs=wish.outputs,
                published_at=datetime.min,
                wish_list=request.wish_list,
                owner=wish.owner or "",
                note=wish.note or "",
                grace_seconds=int(wish.grace.total_seconds()),
            ),
        )
        for platform, name in places_of(wish, reference)
    ]


def _item(
    publication: Publication, image: PlatformImage, now: datetime, before: Publication | None
) -> Item:
    return Item(
        publication.name,
        image,
        replace(
            publication,
            manifest_digest=image.document.digest,
            image_id=image.manifest.image_id,
            published_at=now,
        ),
        before,
    )
