"""One image of a wish: it is compared with what is published; its thin image."""

from __future__ import annotations

from dataclasses import replace

from publisher.errors import failure_text
from publisher.ingest.report import Outcome, Status
from publisher.ingest.shared import Run
from publisher.ingest.stopping import Interrupted
from publisher.ingest.wanted import ConcurrentlyPublished, RequestedImage, compare
from publisher.repository import RepositoryBusy, RepositoryError
from publisher.tree.pins import ImagePinned

_TRIES = 3


def ingest_image(run: Run, image: RequestedImage) -> Outcome | None:
    """Bring one image up to date; return None if the run is stopped before that is done."""
    try:
        return _push_thin(run, image, _bring_up_to_date(run, image))
    except ImagePinned as error:
        return _outcome(image, Status.PINNED, error.source_digest or "", remark=str(error))
    except Interrupted:
        run.cut_short = True
        return None
    except RepositoryBusy:
        if not run.stop.is_set():
            raise
        run.cut_short = True  # it waited for another process when the run was stopped
        return None


def _outcome(image: RequestedImage, status: Status, digest: str = "", remark: str = "") -> Outcome:
    return Outcome(
        image.name,
        str(image.reference),
        status,
        image.request.wish_list,
        image.request.wish.line,
        image.request.wish.column,
        digest,
        remark=remark,
    )


def _bring_up_to_date(run: Run, image: RequestedImage) -> Outcome:
    for _ in range(_TRIES - 1):
        try:
            return _publish_what_is_named_now(run, image)
        except ConcurrentlyPublished:
            continue
    return _publish_what_is_named_now(run, image)


def _publish_what_is_named_now(run: Run, image: RequestedImage) -> Outcome:
    run.progress.image_step(image.name, "resolving")
    comparison = compare(run.repository, run.sources, image, run.now(), is_new=run.layers.prepare)
    unchanged = _outcome(image, Status.UNCHANGED, comparison.digest)
    if comparison.is_current:
        return unchanged
    from publisher.ingest.new_image import publish_new_image  # long to load

    return publish_new_image(run, image, comparison, unchanged)


def _push_thin(run: Run, image: RequestedImage, outcome: Outcome) -> Outcome:
    """Bring the thin image up to date; a failure does not affect the published image."""
    try:
        wanted = run.thin.outdated(image, outcome.digest)
        if wanted is None:
            return outcome
        run.progress.image_step(outcome.name, "pushing its thin image")
        run.thin.push(image, wanted)
    except Exception as error:
        if isinstance(error, RepositoryError):
            raise
        from publisher.ingest.causes import cause_of

        why = failure_text(error, image.name)
        text = f"cannot push its thin image (a later run tries again): {why}"
        return replace(outcome, error=text, cause=cause_of(error))
    unchanged = outcome.status is Status.UNCHANGED
    return replace(outcome, status=Status.RECORDED) if unchanged else outcome
