"""The results of `publisher doctor`: what was checked, and what to do about problems."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """How severe a result is. A problem prevents publishing; a warning may lead to one."""

    GOOD = "good"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a machine. `cure` is what to do unless the verdict is good."""

    subject: str
    verdict: Verdict
    finding: str
    cure: str = ""
