"""Wishes, wish lists, and what can be wrong with them, as values."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from publisher.errors import PublisherError
from publisher.oci.platform import Platform
from publisher.oci.reference import ImageReference

OUTPUTS = ("flat", "layers", "thin", "podman")
"""Every form in which an image can be published."""

DEFAULT_PLATFORMS = (Platform("linux", "amd64"),)
DEFAULT_OUTPUTS = ("flat", "layers")
DEFAULT_GRACE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Wish:
    """One thing that someone wants published.

    `tags` holds the patterns (globs and version ranges) that are matched against the image
    repository's tags, without those that `exclude` matches; it is empty where `image` itself says
    which image is meant, and otherwise `image` has neither tag nor digest. The first of `platforms`
    is public at the plain path. `name` is what an image without a registry is called. `grace` is
    how long the image stays usable once nobody wishes it. `thin` is the output format of the thin
    image's name (see `render_output_format`), or None if none is pushed. `line` and `column` count
    from 1, and are 0 for a wish that stands in no wish list.
    """

    image: ImageReference
    tags: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = DEFAULT_PLATFORMS
    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    grace: timedelta = DEFAULT_GRACE
    name: str | None = None
    owner: str = ""
    note: str = ""
    expires: date | None = None
    thin: str | None = None
    line: int = 0
    column: int = 0

    def has_expired(self, moment: datetime) -> bool:
        """Whether the wish has ended by `moment`: from the beginning of the day `expires` (UTC)."""
        return self.expires is not None and self.expires <= moment.astimezone(UTC).date()

    def __str__(self) -> str:
        if not self.tags:
            return str(self.image)
        return f"{self.image}:{'|'.join(self.tags)}"


class Severity(enum.StrEnum):
    """How bad a problem is: an error spoils what it is about, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a wish list: where, what, and what to write instead.

    `line` and `column` count from 1. `subject` is the text of the wish that an error spoils; it is
    empty for an error that spoils the whole list, and for warnings.
    """

    severity: Severity
    file: str
    line: int
    column: int
    message: str
    suggestion: str = ""
    subject: str = ""

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.severity}: {self.message}"
        return f"{text} ({self.suggestion})" if self.suggestion else text


@dataclass(frozen=True, slots=True)
class WishList:
    """A wish list as read from `name` (a file's name, for messages).

    `repository` is the URL of the published filesystem that the list names, if it names one. A wish
    that has an error is not among `wishes`: the others can be granted nevertheless.
    """

    name: str
    version: int
    user: str
    repository: str | None
    wishes: tuple[Wish, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def unusable(self) -> tuple[Problem, ...]:
        """The errors, each of which has spoilt a wish; of a list without any, all is known."""
        return tuple(p for p in self.problems if p.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What is odd, but spoils nothing."""
        return tuple(p for p in self.problems if p.severity is Severity.WARNING)


class WishListError(PublisherError):
    """A wish list that cannot be used at all; `problems` holds everything that is wrong with it."""

    def __init__(
        self, what: str, *, why: str = "", hint: str = "", problems: Iterable[Problem] = ()
    ) -> None:
        self.problems = tuple(problems)
        if self.problems and not why:
            why = "\n".join(map(str, self.problems))
        super().__init__(what, why=why, hint=hint)


@dataclass(frozen=True, slots=True)
class Request:
    """A wish, and the wish list that it stands in: its path or URL, always written the same."""

    wish: Wish
    wish_list: str = ""
