"""An image that is not published as it is requested: fetch what is missing, publish it.

Its squashfs file follows the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from publisher.errors import failure_text
from publisher.ingest.bills import make_bills
from publisher.ingest.causes import cause_of
from publisher.ingest.publish import publish, unpacked_entries, wait_for_others
from publisher.ingest.report import Outcome, Status
from publisher.ingest.shared import Run
from publisher.ingest.space import Reservation
from publisher.ingest.stopping import Interrupted
from publisher.ingest.wanted import (
    Comparison,
    ConcurrentlyPublished,
    Item,
    RequestedImage,
    counted,
    has_content,
)
from publisher.layers.errors import NoTemporarySpace
from publisher.layers.unpack import LayerSummary
from publisher.lazy import dataclass
from publisher.repository import OutOfSpace, RepositoryChanged, ends_run
from publisher.runtimes import squashfs
from publisher.sources import Source

_PUBLISH_TRIES = 3


def publish_new_image(
    run: Run, image: RequestedImage, comparison: Comparison, outcome: Outcome
) -> Outcome:
    """Publish the image that `comparison` found; return `outcome` with what was done.

    Raises:
        Interrupted: The run is to stop.
        ConcurrentlyPublished: Another run published the name meanwhile: compare again.
        QuotaExceeded: The image needs more than is left of the quota.
        PublisherError: The image cannot be fetched or published.
    """
    run.progress.image_step(image.name, "fetching")
    items = comparison.fetch(image, run.limits, run.admission)
    sizes = {layer.digest: layer.size for i in items for layer in i.image.manifest.layers}
    with counted(run.quota, image, sizes) as check_unpacked:
        made = _fetch_with_space(run, image, comparison, items, check_unpacked)
    fetched = made.fetched
    dropped: dict[str, int] = {}
    for summary in fetched:
        for what, count in summary.dropped.items():
            dropped[what] = dropped.get(what, 0) + count
    published = replace(
        outcome,
        status=made.status,
        layers_fetched=len(fetched),
        layers_reused=len(sizes.keys() - {summary.digest for summary in fetched}),
        bytes_fetched=sum(sizes[summary.digest] for summary in fetched),
        dropped=dropped,
    )
    if made.unbilled is not None:
        published = _without(published, "its bill of materials", made.unbilled)
    return _write_squashfs(run, items, published)


@dataclass(frozen=True, slots=True)
class _Published:
    """The status of an image, the layers that were fetched, and why a bill of materials lacks."""

    status: Status
    fetched: list[LayerSummary]
    unbilled: Exception | None


def _fetch_with_space(
    run: Run,
    image: RequestedImage,
    comparison: Comparison,
    items: list[Item],
    check_unpacked: Callable[[], None],
) -> _Published:
    """Publish `items` when there is space for them beside the images that are in progress.

    If there is not, the image is put off until it can have all space for itself. `check_unpacked`
    is called when all layers are unpacked, and refuses the image by an exception.
    """
    pending = [item for item in items if not has_content(run.repository, item)]
    sizes = {layer.digest: layer.size for i in pending for layer in i.image.manifest.layers}
    if not sizes:
        return _fetch_until_published(run, image, comparison, items, check_unpacked)
    with _space(run, image, sizes) as reservation:
        try:
            return _fetch_until_published(run, image, comparison, items, check_unpacked)
        except (OutOfSpace, NoTemporarySpace):
            # The error is not kept: its frames would keep deleted files open, and their space.
            if not reservation.was_shared and not run.repository.discard_staged(sizes):
                raise
    with _space(run, image, sizes, alone=True):
        run.repository.discard_staged(sizes)
        return _fetch_until_published(run, image, comparison, items, check_unpacked)


@contextmanager
def _space(
    run: Run, image: RequestedImage, sizes: Mapping[str, int], *, alone: bool = False
) -> Iterator[Reservation]:
    """Reserve space for an image until the block ends.

    Raises:
        NotEnoughSpace: The downloads do not fit.
    """
    waited = False

    def keep_waiting() -> None:
        nonlocal waited
        run.layers.check_stop()
        if not waited:
            run.progress.image_step(image.name, "waiting for space")
        waited = True

    with run.layers.space.reserve(sizes, keep_waiting, alone=alone) as reservation:
        with run.repository.reserve_space(sizes, keep_waiting):
            if waited:
                run.progress.image_step(image.name, "fetching")
            yield reservation


def _fetch_until_published(
    run: Run,
    image: RequestedImage,
    comparison: Comparison,
    items: list[Item],
    check_unpacked: Callable[[], None],
) -> _Published:
    """Publish `items`, whose missing layers are fetched."""
    purpose = f"ingest of {image.name}"
    fetched: list[LayerSummary] = []
    run.layers.space.require()
    for attempt in range(1, _PUBLISH_TRIES + 1):
        fetched += _fetch_layers(run, image.name, comparison.source, items)
        run.layers.check_stop()
        run.progress.image_step(image.name, "publishing")
        try:
            run.admission.check_entries(
                image.request.wish,
                image.reference,
                lambda: max(unpacked_entries(run.repository, item) for item in items),
            )
            check_unpacked()
            bills = make_bills(run.repository, items)
            status = publish(
                run.repository,
                items,
                run.now,
                purpose,
                run.notices.refused,
                run.limits,
                run.commits,
                bills.documents,
            )
            made = _Published(status, fetched, bills.error)
            break
        except ConcurrentlyPublished:
            raise  # the reference has to be resolved again
        except OSError as error:
            digests = {layer.digest for item in items for layer in item.image.manifest.layers}
            raise run.layers.space.explained_linking(error, digests) from error
        except RepositoryChanged:
            # Another run is publishing one of the layers: wait until it is published. Or `gc`
            # removed a layer that no image used: fetch it again.
            if attempt == _PUBLISH_TRIES:
                raise
            wait_for_others(run.repository, purpose)
    return made


def _fetch_layers(run: Run, name: str, source: Source, items: list[Item]) -> list[LayerSummary]:
    # An image whose content is published needs no layers, not even their indexes.
    layers = [
        pair
        for item in items
        if not has_content(run.repository, item)
        for pair in zip(item.image.manifest.layers, item.image.config.diff_ids, strict=True)
    ]
    return run.layers.fetch(name, source, layers)


def _write_squashfs(run: Run, items: list[Item], outcome: Outcome) -> Outcome:
    """Publish the squashfs files; a failure does not affect the published image."""
    names = [item.name for item in items if squashfs.OUTPUT in item.wanted.outputs]
    changed = False
    try:
        for name in names:
            run.progress.image_step(outcome.name, "writing its squashfs file")
            changed |= squashfs.publish_squashfs(run.repository, name, run.layers.check_stop)
    except Interrupted:
        raise
    except Exception as error:
        if ends_run(error):
            raise
        return _without(outcome, "its squashfs file", error)
    unchanged = outcome.status is Status.UNCHANGED and changed
    return replace(outcome, status=Status.RECORDED) if unchanged else outcome


def _without(outcome: Outcome, what: str, error: Exception) -> Outcome:
    """Return the outcome of an image that is published without `what`, because of `error`."""
    why = failure_text(error, outcome.name)
    text = f"cannot write {what} (a later run tries again): {why}"
    return replace(outcome, error=text, cause=cause_of(error))
