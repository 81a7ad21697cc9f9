"""An ingest of several wish lists, which may name several repositories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from publisher.ingest.memory import (
    UnreadableList,
    forget_changed,
    forget_unrequested,
    record_problems,
    record_readable,
    record_reported,
    record_unreadable,
)
from publisher.ingest.report import Outcome, Report, failed_report, joined_reports
from publisher.ingest.selection import ListedRequests
from publisher.lazy import dataclass
from publisher.repository import RepositoryError
from publisher.state.store import State
from publisher.times import utc_now
from publisher.wishlist.model import Request

States = Callable[["str | None"], State]
"""Returns the state of the repository with a URL, or of the default repository."""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a run that is about one repository: its report, and the lists that name it.

    `error` is why the repository cannot be used, if it cannot, and `unfinished` the requests that
    it left without an outcome.
    """

    repository: str | None
    lists: tuple[str, ...]
    requests: Sequence[Request]
    report: Report
    error: RepositoryError | None = None
    unfinished: tuple[Request, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether no error of the repository ended the run."""
        return self.error is None


def ingest_lists(
    lists: Sequence[ListedRequests],
    publish: Callable[[Sequence[Request], str | None, Callable[[Report], None]], Report],
    state_of: States,
) -> list[Part]:
    """Publish into the repositories of the lists, one after the other.

    Args:
        lists: The lists that could be read.
        publish: Publishes requests into the repository with a URL. If a RepositoryError ends that,
            the function receives what was done until then.
        state_of: The state of each repository.

    Raises:
        RepositoryError: The only repository cannot be used, and nothing was done. Of several, the
            others are still published into, and the requests for this one have failed.
    """
    by_repository: dict[str | None, list[ListedRequests]] = {}
    for each in lists:
        by_repository.setdefault(each.repository, []).append(each)
    parts: list[Part] = []
    for url, of_url in by_repository.items():
        requests = [request for each in of_url for request in each.requests]
        identities = tuple(dict.fromkeys(each.identity for each in of_url))
        done: list[Report] = []
        try:
            part = Part(url, identities, requests, publish(requests, url, done.append))
        except RepositoryError as error:
            report = done[0] if done else Report((), 0.0, unfinished=tuple(requests))
            unfinished = report.unfinished
            if len(by_repository) > 1:
                report = joined_reports([report, failed_report(unfinished, error)])
                unfinished = ()
            elif not report.outcomes:
                raise
            part = Part(url, identities, requests, report, error, unfinished)
        parts.append(_with_state(part, of_url, state_of(url)))
        if part.report.interrupted:
            break
    return parts


def _with_state(part: Part, lists: Sequence[ListedRequests], state: State) -> Part:
    """Add the wishes with errors, and those that were corrected; forget what no list requests."""
    problems = [problem for each in lists for problem in each.unusable]
    unusable = record_problems(state, problems, utc_now())
    report = joined_reports([part.report], unusable)
    corrected: list[Outcome] = []
    for identity in filter(None, part.lists if part.is_usable else ()):
        forget_changed(state, identity, part.requests)
        if not (report.interrupted or report.is_partial):
            corrected += forget_unrequested(state, identity, part.requests, report)
    return replace(part, report=replace(report, recovered=(*report.recovered, *corrected)))


def with_states_of_lists(
    parts: Sequence[Part],
    lists: Sequence[ListedRequests],
    unreadable: Sequence[UnreadableList],
    state_of: States,
) -> list[Part]:
    """Remember which lists could be read; add those that could not to the first report.

    Their repositories are unknown, unless that of the command line is used.
    """
    now = utc_now()
    changed = []
    for number, part in enumerate(parts):
        state = state_of(part.repository)
        failed = record_unreadable(state, unreadable if number == 0 else (), now)
        recovered = record_readable(state, (each.identity for each in lists))
        report = joined_reports([part.report], failed)
        report = replace(report, recovered=(*report.recovered, *recovered))
        changed.append(replace(part, report=report))
    return changed


def record_reported_failures(part: Part, state: State) -> None:
    """Remember which failures users know now, from the output or from a notification."""
    new = (outcome for outcome in part.report.failed if outcome.is_new_failure)
    record_reported(state, new, utc_now())
