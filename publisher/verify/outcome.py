"""The results of repairing findings."""

from __future__ import annotations

from publisher.errors import explain
from publisher.lazy import dataclass
from publisher.verify.findings import Finding


@dataclass(frozen=True, slots=True)
class Failure:
    """A finding that could not be repaired, the reason, and an action that helps, or ""."""

    finding: Finding
    why: str
    hint: str = ""

    @classmethod
    def of(cls, finding: Finding, error: Exception) -> Failure:
        """Return the failure that `error` caused."""
        known = explain(error)
        why = f"{known.what}: {known.why}" if known.why else known.what
        return cls(finding, why, known.hint)


@dataclass(frozen=True, slots=True)
class Repaired:
    """The findings that were repaired, and those that could not be."""

    findings: tuple[Finding, ...] = ()
    failures: tuple[Failure, ...] = ()
