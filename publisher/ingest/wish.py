"""One wish: all images that it requests."""

from __future__ import annotations

from publisher.errors import failure_text
from publisher.ingest.image import ingest_image
from publisher.ingest.memory import (
    Remembered,
    image_fingerprint,
    remembered_name,
    wish_fingerprint,
)
from publisher.ingest.report import Outcome, Status
from publisher.ingest.shared import Run
from publisher.ingest.wanted import RequestedImage
from publisher.ingest.work import WishWork
from publisher.repository import ContentRefused
from publisher.state import Cause
from publisher.wishlist.model import Request


class WishIngest(WishWork[Outcome]):
    """Brings all images of one wish up to date: one, or as many as its tag patterns match."""

    def __init__(self, run: Run, request: Request) -> None:
        super().__init__(request, run.places)
        self._run = run
        self._memory = run.memory
        self._wish = Remembered(request, str(request.wish), wish_fingerprint(request))
        self._is_changed = run.memory.selects(self._wish)
        self._has_images = False
        self._cut_short = False
        self._images: dict[str, Remembered] = {}

    def skip(self) -> Outcome | None:
        """Return the outcome of a wish that has expired, or whose tags are not listed yet."""
        wish = self.request.wish
        if wish.has_expired(self._run.now()):
            remark = f"the wish has expired on {wish.expires}"
            outcome = self._outcome(str(wish), str(wish.image), Status.EXPIRED, remark=remark)
            self._run.progress.image_done(outcome)
            return outcome
        waiting = self._memory.put_off(self._wish) if self._lists_tags else None
        if waiting is not None:
            self._run.progress.image_done(waiting)
        return waiting

    def is_left_out(self) -> bool:
        """Return whether the wish is not selected, and claims no place that others may not use."""
        if self._is_changed and self._run.selection.may_match(self.request):
            return False
        return self._lists_tags or self.request.wish.has_expired(self._run.now())

    def act(self, image: RequestedImage) -> Outcome | None:
        """Bring one image up to date.

        Return None if it is not selected, or the run is stopped before that is done.
        """
        if not self._selects(image.name):
            return None
        self._has_images = True
        fingerprint = image_fingerprint(self.request, image.reference)
        remembered = Remembered(self.request, image.name, fingerprint)
        self._images[image.name] = remembered
        outcome = self._memory.put_off(remembered)
        if outcome is None:
            outcome = ingest_image(self._run, image)
            if outcome is None:
                self._cut_short = True
                return None
            outcome = self._memory.record(remembered, outcome)
        self._run.progress.image_done(outcome)
        return outcome

    def failed(self, name: str, reference: str, error: Exception) -> Outcome | None:
        """Return the outcome of an image or wish that causes `error`.

        Return None if it is not selected, and once a run stops.
        """
        if not self._selects(name):
            return None
        if self._run.stop.is_set() and not isinstance(error, ContentRefused):
            self._run.cut_short = True
            self._cut_short = True
            return None  # stopping closes the connections, which probably caused the error
        from publisher.ingest.causes import cause_of  # it loads what raises the errors

        why = failure_text(error, name)
        outcome = self._outcome(name, reference, Status.FAILED, why, cause=cause_of(error))
        outcome = self._remember_failure(outcome, error)
        self._run.progress.image_done(outcome)
        return outcome

    def done(self) -> None:
        """Count the request as done."""
        is_whole = self._is_changed and self._run.selection.whole(self.request)
        if is_whole and not self._cut_short:
            wish = self.request.wish
            if self._memory.finish(self._wish, has_images=self._has_images):
                outcome = self._outcome(str(wish), str(wish.image), Status.UNCHANGED)
                self._run.recovered.append(outcome)
        self._run.progress.request_done()

    def _selects(self, name: str) -> bool:
        """Return whether an image, or the wish as a whole, is selected."""
        if not self._is_changed:
            return False
        selection = self._run.selection
        if name == self._wish.name:
            return selection.may_match(self.request)
        return selection.matches(name) or selection.whole(self.request)

    @property
    def _lists_tags(self) -> bool:
        return bool(self.request.wish.tags) and self.request.locked is None

    def _remember_failure(self, outcome: Outcome, error: Exception) -> Outcome:
        """Record a failure; only one that was found with a request is put off."""
        if outcome.name == self._wish.name and self._lists_tags:
            return self._memory.record(self._wish, outcome)
        if outcome.name in self._images:
            return self._memory.record(self._images[outcome.name], outcome)
        if outcome.cause == Cause.CONTRADICTION:
            remembered = Remembered(self.request, remembered_name(outcome), "")
            return self._memory.record(remembered, outcome, has_cost=False)
        self._has_images = self._has_images or outcome.name != self._wish.name
        fingerprint = image_fingerprint(self.request, self.request.wish.image)
        remembered = Remembered(self.request, outcome.name, fingerprint)
        return self._memory.record(remembered, outcome, has_cost=False)

    def _outcome(
        self,
        name: str,
        reference: str,
        status: Status,
        error: str = "",
        remark: str = "",
        cause: str = "",
    ) -> Outcome:
        wish = self.request.wish
        return Outcome(
            name,
            reference,
            status,
            self.request.wish_list,
            wish.line,
            wish.column,
            error=error,
            remark=remark,
            cause=cause,
        )
