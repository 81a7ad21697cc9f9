"""What came of repairing findings."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.verify.findings import Finding


@dataclass(frozen=True, slots=True)
class Failure:
    """A finding that could not be repaired, and why."""

    finding: Finding
    why: str


@dataclass(frozen=True, slots=True)
class Repaired:
    """The findings that were repaired, and those that could not be."""

    findings: tuple[Finding, ...] = ()
    failures: tuple[Failure, ...] = ()
