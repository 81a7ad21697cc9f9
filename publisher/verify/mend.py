"""Putting right what a verification found, by repair and, if sources are given, by download."""

from __future__ import annotations

from collections.abc import Callable

from publisher.layers.policy import Policy
from publisher.repository import Repository
from publisher.sources.open import Sources
from publisher.verify.findings import Finding, Mend
from publisher.verify.refetch import refetch
from publisher.verify.repair import Failure, Mended, repair
from publisher.verify.run import Report, verify


def mend(
    repository: Repository,
    report: Report,
    sources: Sources | None,
    policy: Policy,
    progress: Callable[[str], None] | None = None,
) -> tuple[Mended, Report]:
    """Mend what `report` tells as far as that goes, and look again.

    What is mended may show what could not be seen before (nobody can compare a flat image with a
    layer that has no index): it goes on until nothing new comes up. Without `sources` nothing is
    downloaded.
    """
    mended: list[Finding] = []
    failures: dict[Finding, Failure] = {}
    tried: set[Finding] = set()
    while wanted := [f for f in report.findings if f not in tried and is_wanted(f, bool(sources))]:
        tried.update(wanted)
        done = _mend_once(repository, wanted, sources, policy, progress)
        mended += done.findings
        failures |= {failure.finding: failure for failure in done.failures}
        report = verify(repository, deep=report.deep, progress=progress)
    # Whatever came of it otherwise, what is not found any more is mended.
    failed = tuple(f for finding, f in failures.items() if finding in report.findings)
    return Mended(tuple(f for f in mended if f not in report.findings), failed), report


def is_wanted(finding: Finding, refetching: bool) -> bool:
    """Whether the finding can be mended, by download as well if `refetching`."""
    return finding.mend is Mend.DERIVE or (refetching and finding.mend is Mend.REFETCH)


def _mend_once(
    repository: Repository,
    findings: list[Finding],
    sources: Sources | None,
    policy: Policy,
    progress: Callable[[str], None] | None,
) -> Mended:
    repaired = repair(repository, findings)
    if sources is None:
        return repaired
    resisting = [failure.finding for failure in repaired.failures]
    lost = [finding for finding in findings if finding.mend is Mend.REFETCH]
    fetched = refetch(repository, sources, [*lost, *resisting], policy=policy, progress=progress)
    return Mended((*repaired.findings, *fetched.findings), (*repaired.failures, *fetched.failures))
