"""Putting right what a verification found, by repair and, if sources are given, by download."""

from __future__ import annotations

from collections.abc import Callable

from publisher.layers.policy import Policy
from publisher.repository import Repository
from publisher.sources.open import Sources
from publisher.verify.derive import Failure, Repaired, derive
from publisher.verify.findings import Finding, Remedy
from publisher.verify.refetch import refetch
from publisher.verify.run import Report, verify


def repair(
    repository: Repository,
    report: Report,
    sources: Sources | None,
    policy: Policy,
    progress: Callable[[str], None] | None = None,
) -> tuple[Repaired, Report]:
    """Repair what `report` names as far as that goes, and look again.

    What is repaired may show what could not be seen before (nobody can compare a flat image with a
    layer that has no index): it goes on until nothing new comes up. Without `sources` nothing is
    downloaded.
    """
    repaired: list[Finding] = []
    failures: dict[Finding, Failure] = {}
    tried: set[Finding] = set()
    while wanted := [f for f in report.findings if f not in tried and is_wanted(f, bool(sources))]:
        tried.update(wanted)
        done = _repair_once(repository, wanted, sources, policy, progress)
        repaired += done.findings
        failures |= {failure.finding: failure for failure in done.failures}
        report = verify(repository, deep=report.deep, progress=progress)
    # Whatever came of it otherwise, what is not found any more is repaired.
    failed = tuple(f for finding, f in failures.items() if finding in report.findings)
    return Repaired(tuple(f for f in repaired if f not in report.findings), failed), report


def is_wanted(finding: Finding, refetching: bool) -> bool:
    """Whether the finding can be repaired, by download as well if `refetching`."""
    return finding.remedy is Remedy.DERIVE or (refetching and finding.remedy is Remedy.REFETCH)


def _repair_once(
    repository: Repository,
    findings: list[Finding],
    sources: Sources | None,
    policy: Policy,
    progress: Callable[[str], None] | None,
) -> Repaired:
    derived = derive(repository, findings)
    if sources is None:
        return derived
    resisting = [failure.finding for failure in derived.failures]
    lost = [finding for finding in findings if finding.remedy is Remedy.REFETCH]
    fetched = refetch(repository, sources, [*lost, *resisting], policy=policy, progress=progress)
    return Repaired((*derived.findings, *fetched.findings), (*derived.failures, *fetched.failures))
