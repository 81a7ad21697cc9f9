"""The mistakes in a file that a user has written: wish list, policy, configuration."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from publisher.errors import PublisherError
from publisher.lazy import dataclass


class Severity(enum.StrEnum):
    """An error makes its subject or the whole file unusable, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake in a file: its place, and what to write instead.

    `line` and `column` count from 1. `subject` is the part of the file, such as a wish, that an
    error makes unusable; it is empty for an error that makes the whole file unusable, and for
    warnings. `rule` is a name for the kind of mistake, for those that programs tell apart.
    """

    severity: Severity
    file: str
    line: int
    column: int
    message: str
    suggestion: str = ""
    subject: str = ""
    rule: str = ""

    @property
    def text(self) -> str:
        """The message and the suggestion, without the place."""
        return f"{self.message} ({self.suggestion})" if self.suggestion else self.message

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.severity}: {self.text}"


class InvalidFile(PublisherError):
    """A YAML file is unusable; `problems` holds all its mistakes, if it could be read."""

    def __init__(
        self, what: str, *, why: str = "", hint: str = "", problems: Iterable[Problem] = ()
    ) -> None:
        self.problems = tuple(problems)
        super().__init__(what, why=why or "\n".join(map(str, self.problems)), hint=hint)
