"""Compare two versions of a wish list: the wishes and problems that a change adds. Pure."""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from publisher.lazy import dataclass, pattern
from publisher.problems import Problem
from publisher.wishlist.model import Wish

_LINE_NUMBER = pattern(r"\bline \d+")


class Change(enum.StrEnum):
    """How a wish differs from the earlier version of its list.

    ALTERED: another setting of a wish for the same image. TERMS: only its grace period or its note,
    of which a registry knows nothing.
    """

    ADDED = "added"
    ALTERED = "altered"
    TERMS = "terms"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class ListVersion:
    """One version of a wish list: its lines, its usable wishes, and its problems."""

    lines: tuple[str, ...] = ()
    wishes: tuple[Wish, ...] = ()
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, data: bytes, wishes: Sequence[Wish], problems: Sequence[Problem]) -> ListVersion:
        """Return the version with the content `data`, which need not be valid UTF-8."""
        lines = data.decode("utf-8-sig", "replace").splitlines()
        return cls(tuple(line.strip() for line in lines), tuple(wishes), tuple(problems))

    def line(self, number: int) -> str:
        """Return the text of a line, counted from 1, without white space around it."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new version of a list changes.

    `wishes` holds every wish of the new version, in its order. `removed` holds the wishes of the
    old version that the new one does not have. `former` holds pairs of wishes that were altered:
    the new one, and the old one. `introduced` are the problems of the new version
    that the old one did not have, `earlier` the others.
    """

    wishes: tuple[tuple[Wish, Change], ...]
    removed: tuple[Wish, ...]
    former: tuple[tuple[Wish, Wish], ...]
    introduced: tuple[Problem, ...]
    earlier: tuple[Problem, ...]

    def count(self, *changes: Change) -> int:
        """Return how many wishes have one of these changes."""
        return sum(change in changes for _, change in self.wishes)


def compare_versions(new: ListVersion, old: ListVersion) -> Changes:
    """Compare two versions of a list.

    Wishes are compared by their meaning: another spelling, place or form of the list is no change.
    Of equal wishes, those whose line is unchanged count as the earlier ones.
    """
    found: dict[int, Change] = {}
    former: list[tuple[Wish, Wish]] = []
    remaining = list(old.wishes)
    pending = list(range(len(new.wishes)))
    for change, key in _KEYS:
        left: dict[object, list[Wish]] = defaultdict(list)
        for wish in remaining:
            left[key(wish, old)].append(wish)
        for number in pending:
            candidates = left[key(new.wishes[number], new)]
            if candidates:
                old_wish = candidates.pop(0)
                found[number] = change
                if change is not Change.KEPT:
                    former.append((new.wishes[number], old_wish))
        pending = [number for number in pending if number not in found]
        remaining = [wish for wishes in left.values() for wish in wishes]
    introduced, earlier = _compare_problems(new, old)
    wishes = tuple((wish, found.get(n, Change.ADDED)) for n, wish in enumerate(new.wishes))
    return Changes(wishes, tuple(remaining), tuple(former), introduced, earlier)


def _with_line(wish: Wish, version: ListVersion) -> object:
    return _meaning(wish, version), version.line(wish.line)


def _meaning(wish: Wish, version: ListVersion) -> object:
    return replace(wish, line=0, column=0)


def _without_terms(wish: Wish, version: ListVersion) -> object:
    return replace(wish, line=0, column=0, grace=timedelta(), note="")


def _image(wish: Wish, version: ListVersion) -> object:
    return wish.image, wish.tags, wish.name


_KEYS = (
    (Change.KEPT, _with_line),
    (Change.KEPT, _meaning),
    (Change.TERMS, _without_terms),
    (Change.ALTERED, _image),
)
"""What two wishes must have in common for each change, from the strictest to the loosest."""


def _compare_problems(
    new: ListVersion, old: ListVersion
) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    known = Counter(_problem_key(problem, old) for problem in old.problems)
    introduced: list[Problem] = []
    earlier: list[Problem] = []
    for problem in new.problems:
        key = _problem_key(problem, new)
        (earlier if known[key] > 0 else introduced).append(problem)
        known[key] -= 1
    return tuple(introduced), tuple(earlier)


def without_line_numbers(message: str) -> str:
    """Return a message so that it stays the same if lines are added above."""
    return _LINE_NUMBER.sub("line", message)


def _problem_key(problem: Problem, version: ListVersion) -> object:
    """Return what stays the same if lines are added above the problem."""
    message = without_line_numbers(problem.message)
    return problem.severity, message, problem.suggestion, version.line(problem.line)
