"""What a look at a machine found: one line each, with what to do about it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """How bad it is. A problem keeps us from publishing; a warning will, or might."""

    GOOD = "good"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `cure` says what to do unless all is well."""

    subject: str
    verdict: Verdict
    finding: str
    cure: str = ""
