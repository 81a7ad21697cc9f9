"""One wish: all images that it requests."""

from __future__ import annotations

from publisher.errors import failure_text
from publisher.ingest.image import Run, ingest_image
from publisher.ingest.report import Outcome, Status
from publisher.ingest.wanted import RequestedImage, for_each_image
from publisher.wishlist.model import Request


def ingest_wish(run: Run, request: Request) -> list[Outcome]:
    """Bring all images of one wish up to date: one, or as many as its tag patterns match."""
    wish = request.wish
    if wish.has_expired(run.now()):
        remark = f"the wish has expired on {wish.expires}"
        expired = Outcome(
            str(wish),
            str(wish.image),
            Status.EXPIRED,
            request.wish_list,
            wish.line,
            wish.column,
            remark=remark,
        )
        run.progress.image_done(expired)
        return [expired]

    def act(image: RequestedImage) -> Outcome | None:
        outcome = ingest_image(run, image)
        if outcome is not None:
            run.progress.image_done(outcome)
        return outcome

    def failed(name: str, reference: str, error: Exception) -> Outcome | None:
        why = failure_text(error, name)
        if is_stopped():
            return None  # stopping closes the connections, which probably caused the error
        failure = Outcome(
            name,
            reference,
            Status.FAILED,
            request.wish_list,
            wish.line,
            wish.column,
            error=why,
        )
        run.progress.image_done(failure)
        return failure

    def is_stopped() -> bool:
        run.cut_short |= run.stop.is_set()
        return run.stop.is_set()

    return for_each_image(
        request,
        run.sources,
        run.places,
        act,
        failed,
        admission=run.admission,
        is_stopped=is_stopped,
    )
