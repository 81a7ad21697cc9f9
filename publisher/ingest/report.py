"""Reports of an ingest: its progress, and the outcomes at its end."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Protocol

from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.sources.wish_lists import list_identity
from publisher.state import Cause, News
from publisher.wishlist import Problem
from publisher.wishlist.model import Request


class Status(enum.StrEnum):
    """The outcome for one requested image."""

    PUBLISHED = "published"  # no image had its name
    UPDATED = "updated"  # its tag has moved; the old image is scheduled for removal
    RECORDED = "recorded"  # the same image with a changed record or link
    UNCHANGED = "unchanged"  # it is current; nothing was changed
    PINNED = "pinned"  # its tag has moved, but the image is pinned and stays as it is
    EXPIRED = "expired"  # the wish has expired; the image is left to `publisher prune`
    WAITING = "waiting"  # it failed shortly before, and is not tried again yet
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome for one requested image: `name` is its public name, or the text of the wish.

    For a list that cannot be read, `name` is its identity.

    `line` and `column` are the place of the wish in `wish_list`, from 1; 0 without a list.
    `bytes_fetched` counts the layers as downloaded, `layers_reused` those that were stored before.
    `error` is why it failed; with another status, why its squashfs file or its bill of materials
    could not be written, or its thin image not pushed.
    `remark` is why an image was not published if that is not a failure.
    `cause` is why it failed, in one word. `failing_since`, `next_try` and `news` are what the state
    contains about the failure; see `publisher.state.Tries`.
    """

    name: str
    reference: str
    status: Status
    wish_list: str = ""
    line: int = 0
    column: int = 0
    digest: str = ""
    layers_fetched: int = 0
    layers_reused: int = 0
    bytes_fetched: int = 0
    dropped: dict[str, int] | None = None
    error: str = ""
    remark: str = ""
    cause: str = ""
    failing_since: datetime | None = None
    next_try: datetime | None = None
    news: News | None = None

    @property
    def is_new_failure(self) -> bool:
        """Whether it failed, and nothing is known of a report on this failure."""
        return bool(self.error) and (self.news is not None or self.failing_since is None)

    @property
    def is_of_list(self) -> bool:
        """Whether it is about a wish list as a whole, which cannot be read."""
        return bool(self.wish_list) and self.name == self.wish_list


@dataclass(frozen=True, slots=True)
class Report:
    """The outcomes of one run, in the order of the wish lists, and its duration in seconds.

    `steps` has the seconds of each kind of step ("resolving", "fetching"), summed over all images.
    Images are processed side by side, so that the sum may exceed the duration. `is_partial` is
    whether the run worked on a selection of the wishes. `recovered` has the wishes with patterns
    whose tags could not be listed when a run last reported it, and now can. `unfinished` has the
    requests that were not completed because the repository could not be used any more.
    """

    outcomes: tuple[Outcome, ...]
    seconds: float
    interrupted: bool = False
    steps: Mapping[str, float] = field(default_factory=dict)
    is_partial: bool = False
    recovered: tuple[Outcome, ...] = ()
    unfinished: tuple[Request, ...] = ()

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The images that could not be published, or whose other outputs failed."""
        return tuple(o for o in self.outcomes if o.error)

    @property
    def of_lists(self) -> tuple[Outcome, ...]:
        """The outcomes of wish lists that cannot be read."""
        return tuple(o for o in self.outcomes if o.is_of_list)

    @property
    def of_images(self) -> tuple[Outcome, ...]:
        """The outcomes without those of wish lists that cannot be read."""
        return tuple(o for o in self.outcomes if not o.is_of_list)

    def count(self, status: Status) -> int:
        """Return how many images have this status."""
        return sum(o.status is status for o in self.outcomes)


def failed_report(requests: Sequence[Request], error: PublisherError) -> Report:
    """Return the report of a run whose repository could not be used: every request failed."""
    outcomes = (
        Outcome(
            str(r.wish),
            str(r.wish),
            Status.FAILED,
            r.wish_list,
            r.wish.line,
            r.wish.column,
            error=str(error),
            cause=Cause.REPOSITORY,
        )
        for r in requests
    )
    return Report(tuple(outcomes), 0.0)


def unusable_wish(problem: Problem) -> Outcome:
    """Return the outcome for a wish with an error."""
    return Outcome(
        problem.subject,
        problem.subject,
        Status.FAILED,
        list_identity(problem.file),
        problem.line,
        problem.column,
        error=problem.text,
        cause=Cause.WISH_LIST,
    )


def joined_reports(reports: Sequence[Report], others: Sequence[Outcome] = ()) -> Report:
    """Return one report on runs with several repositories, and the other outcomes."""
    outcomes = [outcome for report in reports for outcome in report.outcomes]
    outcomes += others
    steps: dict[str, float] = {}
    for report in reports:
        for step, seconds in report.steps.items():
            steps[step] = steps.get(step, 0.0) + seconds
    return Report(
        tuple(outcomes),
        sum(report.seconds for report in reports),
        any(report.interrupted for report in reports),
        steps,
        any(report.is_partial for report in reports),
        tuple(outcome for report in reports for outcome in report.recovered),
    )


class Progress(Protocol):
    """Receives the events of a run, from several threads. Names are public names, sizes bytes."""

    def run_started(self, requests: int) -> None:
        """The run begins; it has this many requests."""

    def request_done(self) -> None:
        """A request is finished, with all images that its tag patterns matched."""

    def image_step(self, name: str, step: str) -> None:
        """A step for the image begins, such as "resolving", "fetching", "publishing"."""

    def image_done(self, outcome: Outcome) -> None:
        """The outcome for an image is known."""

    def layers_expected(self, name: str, sizes: Mapping[str, int]) -> None:
        """These layers will be downloaded for the image: compressed sizes by digest."""

    def layer_started(self, digest: str, size: int) -> None:
        """A layer's download begins."""

    def layer_advanced(self, digest: str, count: int) -> None:
        """`count` more bytes of it have arrived."""

    def layer_done(self, digest: str) -> None:
        """The layer is complete and verified, or its download failed."""

    def notice(self, text: str) -> None:
        """Show a message for administrators; the same message comes once per run."""


class Silent:
    """Progress that ignores every event."""

    def run_started(self, requests: int) -> None:
        """Do nothing."""

    def request_done(self) -> None:
        """Do nothing."""

    def image_step(self, name: str, step: str) -> None:
        """Do nothing."""

    def image_done(self, outcome: Outcome) -> None:
        """Do nothing."""

    def layers_expected(self, name: str, sizes: Mapping[str, int]) -> None:
        """Do nothing."""

    def layer_started(self, digest: str, size: int) -> None:
        """Do nothing."""

    def layer_advanced(self, digest: str, count: int) -> None:
        """Do nothing."""

    def layer_done(self, digest: str) -> None:
        """Do nothing."""

    def notice(self, text: str) -> None:
        """Do nothing."""


class Forwarding:
    """Progress that passes every event on; a base for classes that also use some of them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def run_started(self, requests: int) -> None:
        """Pass the event on."""
        self._progress.run_started(requests)

    def request_done(self) -> None:
        """Pass the event on."""
        self._progress.request_done()

    def image_step(self, name: str, step: str) -> None:
        """Pass the event on."""
        self._progress.image_step(name, step)

    def image_done(self, outcome: Outcome) -> None:
        """Pass the event on."""
        self._progress.image_done(outcome)

    def layers_expected(self, name: str, sizes: Mapping[str, int]) -> None:
        """Pass the event on."""
        self._progress.layers_expected(name, sizes)

    def layer_started(self, digest: str, size: int) -> None:
        """Pass the event on."""
        self._progress.layer_started(digest, size)

    def layer_advanced(self, digest: str, count: int) -> None:
        """Pass the event on."""
        self._progress.layer_advanced(digest, count)

    def layer_done(self, digest: str) -> None:
        """Pass the event on."""
        self._progress.layer_done(digest)

    def notice(self, text: str) -> None:
        """Pass the event on."""
        self._progress.notice(text)
