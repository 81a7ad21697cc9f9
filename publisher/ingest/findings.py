"""What a check of wish lists finds: each finding has a place, a rule, and a level."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import replace

from publisher.errors import InvalidManifest, InvalidReference, PublisherError, explain
from publisher.ingest.admission import OutsidePrefix, PolicyViolated
from publisher.layers.errors import LimitExceeded
from publisher.lazy import dataclass
from publisher.oci.tag_patterns import InvalidPattern
from publisher.sources import ImageNotFound
from publisher.sources.image import PlatformNotFound
from publisher.sources.tags import NoMatchingTags
from publisher.wishlist import Problem, Wish
from publisher.wishlist.places import NameTaken


class Level(enum.StrEnum):
    """An error fails the check. A warning and a note do not; a note asks for no change."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Rule(enum.StrEnum):
    """The kinds of findings: see docs/pull-requests.md, and `describe_rule`."""

    WISH_LIST = "wish-list"
    DUPLICATE = "duplicate-wish"
    OVERLAP = "overlapping-wish"
    NAME_TAKEN = "name-taken"
    EXPIRED = "expired-wish"
    COMPARISON = "comparison"
    IMAGE_MISSING = "image-missing"
    NO_TAG = "no-matching-tag"
    PLATFORM_MISSING = "platform-missing"
    NOT_AN_IMAGE = "not-an-image"
    LIMIT = "limit-exceeded"
    MUTABLE_TAG = "mutable-tag"
    PREFIX = "outside-prefix"
    UNREACHABLE = "registry-failed"


POLICY = "policy/"
"""How the names of the rules of a policy begin."""

_DESCRIPTIONS: Mapping[str, str] = {
    Rule.WISH_LIST: "A wish list has a mistake",
    Rule.DUPLICATE: "A wish is listed twice",
    Rule.OVERLAP: "Two wishes request the same image",
    Rule.NAME_TAKEN: "Two wishes conflict at one place of the published tree",
    Rule.EXPIRED: "A wish has expired",
    Rule.COMPARISON: "A list was not compared with what was requested",
    Rule.IMAGE_MISSING: "The registry does not have the image",
    Rule.NO_TAG: "No tag matches the patterns",
    Rule.PLATFORM_MISSING: "The image does not exist for a requested platform",
    Rule.NOT_AN_IMAGE: "The reference does not name an image that can be unpacked",
    Rule.LIMIT: "The image is larger than the repository allows",
    Rule.MUTABLE_TAG: "The tag moves from image to image",
    Rule.PREFIX: "The image would be published outside of the directory of its project",
    Rule.UNREACHABLE: "The registry does not answer, or refuses the request",
}
"""One sentence about each rule, without a full stop."""

_RULES: tuple[tuple[type[Exception], Rule], ...] = (
    (ImageNotFound, Rule.IMAGE_MISSING),
    (NoMatchingTags, Rule.NO_TAG),
    (PlatformNotFound, Rule.PLATFORM_MISSING),
    (LimitExceeded, Rule.LIMIT),
    (NameTaken, Rule.NAME_TAKEN),
    (InvalidManifest, Rule.NOT_AN_IMAGE),
    (InvalidReference, Rule.WISH_LIST),
    (InvalidPattern, Rule.WISH_LIST),
    (OutsidePrefix, Rule.PREFIX),
)

_HINTS: Mapping[str, str] = {
    Rule.IMAGE_MISSING: "correct the name or the tag: `publisher tags IMAGE` lists the tags",
    Rule.NO_TAG: "correct the pattern: `publisher tags IMAGE` lists the tags",
    Rule.LIMIT: "request a smaller image, or ask the administrator for a higher limit",
    Rule.UNREACHABLE: "run the check again when the registry answers",
}
"""What to do where the error itself has no hint."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check.

    `line` and `column` are its place in `file`, from 1; both are 0 if it concerns the whole file.
    `subject` is the wish or image, and `owner` that of the wish; both may be "". `hint` is what to
    do, or "". `earlier`: it is older than the change that is checked.
    """

    rule: str
    level: Level
    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    subject: str = ""
    owner: str = ""
    earlier: bool = False

    @property
    def text(self) -> str:
        """The message and the hint, without the place."""
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.level}: {self.text}"

    def as_earlier(self) -> Finding:
        """Return the finding as a note: it is older than the change that is checked."""
        owner = f", requested by {self.owner}" if self.owner else ""
        message = f"not part of this change{owner}: {self.message}"
        return replace(self, level=Level.NOTE, message=message, earlier=True)


def of_wish(
    rule: str, level: Level, file: str, wish: Wish, message: str, hint: str = ""
) -> Finding:
    """Return a finding at the place of `wish` in the list `file`."""
    return Finding(rule, level, file, wish.line, wish.column, message, hint, str(wish), wish.owner)


def of_problem(problem: Problem) -> Finding:
    """Return a problem of a wish list as a finding."""
    return Finding(
        problem.rule or Rule.WISH_LIST,
        Level(problem.severity.value),
        problem.file,
        problem.line,
        problem.column,
        problem.message,
        problem.suggestion,
        problem.subject,
    )


def rule_of(error: Exception) -> str:
    """Return the rule under which the failure of an image is reported."""
    if isinstance(error, PolicyViolated):
        return f"{POLICY}{error.rule}"
    return next((rule for kind, rule in _RULES if isinstance(error, kind)), Rule.UNREACHABLE)


def what_to_do(error: Exception) -> str:
    """Return the hint of an error, or that of its rule."""
    hint = explain(error).hint if isinstance(error, PublisherError | OSError) else ""
    return hint or _HINTS.get(rule_of(error), "")


def describe_rule(rule: str) -> str:
    """Return one sentence about a rule, without a full stop."""
    if rule.startswith(POLICY):
        return f"The policy does not allow it: {rule.removeprefix(POLICY)}"
    return _DESCRIPTIONS[rule]


def in_order(findings: Sequence[Finding], files: Sequence[str]) -> tuple[Finding, ...]:
    """Return findings in the order of `files`, and of their places in them."""
    order = {name: number for number, name in enumerate(files)}
    return tuple(sorted(findings, key=lambda f: (order.get(f.file, len(order)), f.line, f.column)))
