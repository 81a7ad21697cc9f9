"""The results of `publisher doctor`: the checks, and the remedies for problems."""

from __future__ import annotations

import enum

from publisher.lazy import dataclass


class Verdict(enum.StrEnum):
    """How severe a result is. A problem prevents publishing; a warning may lead to one."""

    GOOD = "good"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a machine. `cure` is the remedy, unless the verdict is good."""

    subject: str
    verdict: Verdict
    finding: str
    cure: str = ""
