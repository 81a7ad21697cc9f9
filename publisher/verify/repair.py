"""Repair what a verification found, from the repository or by download, and verify again."""

from __future__ import annotations

from collections.abc import Callable

from publisher.layers.policy import Policy
from publisher.repository import Repository
from publisher.sources.open import Sources
from publisher.times import utc_now
from publisher.verify.derive import derive
from publisher.verify.findings import Finding, Kind, Remedy, is_wanted
from publisher.verify.outcome import Failure, Repaired
from publisher.verify.record_versions import release_newer
from publisher.verify.refetch import refetch
from publisher.verify.run import Report, verify
from publisher.workers.pool import Workers

_ROUNDS = 10
"""The largest number of rounds: more than the longest chain of dependent findings."""


def repair(
    repository: Repository,
    report: Report,
    sources: Sources | None,
    policy: Policy,
    progress: Callable[[str], None] | None = None,
    *,
    workers: Workers | None = None,
    replace_newer: bool = False,
) -> tuple[Repaired, Report]:
    """Repair what `report` names as far as possible, and verify again.

    A repair may lead to new findings (a flat image is compared once its layers have indexes), or
    make another repair possible (records, once a manifest is readable). Repair and verification
    are repeated until nothing changes.

    Args:
        repository: Opened for writing.
        report: The report of a verification.
        sources: Where to download from; if None, nothing is downloaded.
        policy: What of a layer may appear in the repository.
        progress: Called with a description of what is being read or fetched.
        workers: Unpacks downloaded layers, and has the number of processes that read contents; by
            default this process does both.
        replace_newer: Also rebuild records that a newer release wrote.

    Returns:
        The repaired findings and the failures, and the report of the last verification.
    """
    workers = workers or Workers(0)
    repaired: list[Finding] = []
    failures: dict[Finding, Failure] = {}
    before: set[Finding] = set()
    if replace_newer and release_newer(repository, report.findings):
        repaired += (f for f in report.findings if f.kind is Kind.FUTURE_VERSION)
        report = verify(repository, deep=report.deep, progress=progress, processes=workers.count)
    for _ in range(_ROUNDS):
        wanted = [finding for finding in report.findings if is_wanted(finding, bool(sources))]
        if not wanted or set(wanted) == before:
            break
        before = set(wanted)
        done = _repair_once(repository, wanted, sources, policy, workers, progress)
        repaired += done.findings
        failures |= {failure.finding: failure for failure in done.failures}
        report = verify(repository, deep=report.deep, progress=progress, processes=workers.count)
    # A finding that has disappeared counts as repaired, even if a repair of it failed before.
    left = set(report.findings)
    failed = tuple(failure for finding, failure in failures.items() if finding in left)
    return Repaired(tuple(f for f in dict.fromkeys(repaired) if f not in left), failed), report


def _repair_once(
    repository: Repository,
    findings: list[Finding],
    sources: Sources | None,
    policy: Policy,
    workers: Workers,
    progress: Callable[[str], None] | None,
) -> Repaired:
    derived = derive(repository, findings, utc_now().replace(microsecond=0))
    if sources is None:
        return derived
    failed = [failure.finding for failure in derived.failures]
    lost = [finding for finding in findings if finding.remedy is Remedy.REFETCH]
    fetched = refetch(
        repository,
        sources,
        [*lost, *failed],
        policy=policy,
        workers=workers,
        progress=progress,
    )
    return Repaired((*derived.findings, *fetched.findings), (*derived.failures, *fetched.failures))
