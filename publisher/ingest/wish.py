"""One wish: all images that it requests."""

from __future__ import annotations

from publisher.errors import failure_text
from publisher.ingest.image import Run, ingest_image
from publisher.ingest.report import Outcome, Status
from publisher.ingest.wanted import RequestedImage
from publisher.ingest.work import WishWork
from publisher.wishlist.model import Request


class WishIngest(WishWork[Outcome]):
    """Brings all images of one wish up to date: one, or as many as its tag patterns match."""

    def __init__(self, run: Run, request: Request) -> None:
        super().__init__(request, run.places)
        self._run = run

    def skip(self) -> Outcome | None:
        """Return the outcome of a wish that has expired."""
        wish = self.request.wish
        if not wish.has_expired(self._run.now()):
            return None
        remark = f"the wish has expired on {wish.expires}"
        return self._finished(str(wish), str(wish.image), Status.EXPIRED, remark=remark)

    def act(self, image: RequestedImage) -> Outcome | None:
        """Bring one image up to date; return None if the run is stopped before that is done."""
        outcome = ingest_image(self._run, image)
        if outcome is not None:
            self._run.progress.image_done(outcome)
        return outcome

    def failed(self, name: str, reference: str, error: Exception) -> Outcome | None:
        """Return the outcome of an image or wish that causes `error`; None once a run stops."""
        if self._run.stop.is_set():
            self._run.cut_short = True
            return None  # stopping closes the connections, which probably caused the error
        why = failure_text(error, name)
        return self._finished(name, reference, Status.FAILED, error=why)

    def done(self) -> None:
        """Count the request as done."""
        self._run.progress.request_done()

    def _finished(
        self, name: str, reference: str, status: Status, error: str = "", remark: str = ""
    ) -> Outcome:
        wish = self.request.wish
        outcome = Outcome(
            name,
            reference,
            status,
            self.request.wish_list,
            wish.line,
            wish.column,
            error=error,
            remark=remark,
        )
        self._run.progress.image_done(outcome)
        return outcome
