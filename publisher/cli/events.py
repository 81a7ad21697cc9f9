"""The events of notifications that follow from the report of each command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from publisher.cli.repositories import open_repository
from publisher.errors import PublisherError
from publisher.notify import Event, Kind
from publisher.repository import Repository
from publisher.repository.checks import Check, Verdict
from publisher.repository.reading import load_publication
from publisher.sizes import human_size
from publisher.state import News
from publisher.times import format_time
from publisher.tree.publication import Publication

if TYPE_CHECKING:  # a command does not import what the others need
    from publisher.ingest.report import Outcome
    from publisher.ingest.report import Report as IngestReport
    from publisher.removal.gc import Report as GcReport
    from publisher.removal.prune import Report as PruneReport
    from publisher.verify.run import Report as VerifyReport
    from publisher.wishlist.model import Request


def ingest_events(report: IngestReport, requests: Iterable[Request]) -> Iterator[Event]:
    """Yield what an ingest changed, the failures that are news, and those that are over."""
    from publisher.ingest.report import Status

    owners = {(r.wish_list, r.wish.line, r.wish.column): r.wish.owner for r in requests}
    for outcome in report.outcomes:
        owner = owners.get((outcome.wish_list, outcome.line, outcome.column), "")
        if outcome.is_new_failure:
            text = outcome.error
            if outcome.news is News.LASTING and outcome.failing_since is not None:
                text = f"since {format_time(outcome.failing_since)}: {text}"
            yield _of(Kind.FAILED, outcome, owner, text)
        elif outcome.news is News.RECOVERED:
            yield _of(Kind.RECOVERED, outcome, owner)
        if outcome.status in (Status.PUBLISHED, Status.UPDATED):
            text = "its tag has moved" if outcome.status is Status.UPDATED else ""
            yield _of(Kind.PUBLISHED, outcome, owner, text)
    for outcome in report.recovered:
        owner = owners.get((outcome.wish_list, outcome.line, outcome.column), "")
        yield _of(Kind.RECOVERED, outcome, owner)


def _of(kind: Kind, outcome: Outcome, owner: str, text: str = "") -> Event:
    return Event(
        kind=kind,
        subject=outcome.name,
        text=text,
        reference=outcome.reference,
        digest=outcome.digest,
        owner=owner,
        wish_list=outcome.wish_list,
        line=outcome.line,
    )


def prune_events(url: str | None, report: PruneReport) -> Iterator[Event]:
    """Yield the images that were scheduled, with the owners of their wishes."""
    if not report.scheduled:
        return
    with closing(open_repository(url)) as repository:
        publications = {each.name: _publication(repository, each.name) for each in report.scheduled}
    for entry in report.scheduled:
        publication = publications[entry.name]
        lists = sorted(publication.wish_lists) if publication else []
        until = format_time(entry.not_before)
        yield Event(
            kind=Kind.WITHDRAWN,
            subject=entry.name,
            text=f"no wish list requests it; it may be removed from {until}",
            reference=entry.reference,
            digest=entry.manifest_digest,
            owner=publication.owner if publication else "",
            wish_list=lists[0] if lists else "",
        )


def _publication(repository: Repository, name: str) -> Publication | None:
    with suppress(PublisherError):  # the image is scheduled, whatever its record contains
        return load_publication(repository, name)
    return None


def prune_problems(report: PruneReport) -> list[Event]:
    """Return why nothing was scheduled, and which images were kept for lack of records."""
    why = [report.refused] if report.refused else report.uncertain
    return [
        *(Event(Kind.FAILED, "prune", text) for text in why),
        *(Event(Kind.FAILED, name, text) for name, text in report.unreadable.items()),
    ]


def gc_events(report: GcReport) -> Iterator[Event]:
    """Yield the images that were collected."""
    for each in report.released:
        entry, freed = each.entry, f"{human_size(each.size)} freed"
        yield Event(Kind.COLLECTED, entry.name, freed, entry.reference, entry.manifest_digest)


def gc_problems(report: GcReport) -> list[Event]:
    """Return the images that were kept because their records are uncertain."""
    return [Event(Kind.FOUND, each.entry.name, each.why) for each in report.kept]


def verify_problems(report: VerifyReport) -> list[Event]:
    """Return the findings that need a repair."""
    from publisher.verify.findings import Severity

    return [
        Event(Kind.FOUND, finding.image or finding.path or ".", f"{finding.kind}: {finding.what}")
        for finding in report.findings
        if finding.severity is not Severity.NOTE
    ]


def doctor_problems(checks: Iterable[Check]) -> list[Event]:
    """Return the checks that found a problem."""
    return [
        Event(Kind.FOUND, check.subject, f"{check.finding} (try: {check.cure})")
        for check in checks
        if check.verdict is Verdict.PROBLEM
    ]
