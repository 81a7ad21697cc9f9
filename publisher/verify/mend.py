"""Putting right what a verification found, by repair and, if sources are given, by download."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from publisher.layers.policy import Policy
from publisher.repository import Repository
from publisher.sources.open import Sources
from publisher.verify import verify
from publisher.verify.findings import Finding, Mend
from publisher.verify.refetch import refetch
from publisher.verify.repair import Mended, repair


def mend(
    repository: Repository,
    findings: Sequence[Finding],
    sources: Sources | None,
    policy: Policy,
    progress: Callable[[str], None] | None = None,
) -> Mended:
    """Mend `findings` as far as that goes; without `sources` nothing is downloaded."""
    repaired = repair(repository, findings)
    if sources is None:
        return repaired
    resisting = [failure.finding for failure in repaired.failures]
    wanted = [finding for finding in findings if finding.mend is Mend.REFETCH]
    fetched = refetch(repository, sources, [*wanted, *resisting], policy=policy, progress=progress)
    # What was fetched may be what other things follow from.
    followed = repair(repository, [*resisting, *verify(repository).findings])
    mended = (*repaired.findings, *fetched.findings, *followed.findings)
    failures = (*fetched.failures, *followed.failures)
    return Mended(
        tuple(dict.fromkeys(mended)),
        tuple(failure for failure in failures if failure.finding not in mended),
    )
