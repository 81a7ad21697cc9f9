"""Choosing tags: globs and version ranges, matched against the tags that there are."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from publisher.errors import PublisherError
from publisher.sources import Source

_RANGE = re.compile(r"\s*(?:[<>]=?|==|!=|~=)")


class NoMatchingTags(PublisherError):
    """No tag of an image repository is what the patterns ask for."""


class InvalidPattern(PublisherError):
    """A text is neither a glob nor a version range."""


def expand_tags(source: Source, patterns: Sequence[str], exclude: Sequence[str] = ()) -> list[str]:
    """The tags of `source` that `match_tags` chooses. Raises what it and the source raise."""
    matches = _Choice(patterns, exclude)  # a bad pattern is found before anything is asked
    return matches.among(source.tags())


def match_tags(
    tags: Iterable[str], patterns: Sequence[str], exclude: Sequence[str] = ()
) -> list[str]:
    """Those of `tags` that match a pattern and no exclusion, in natural order, each once.

    A pattern is a glob ("1.7.*") or a version range (">=1.8,<2", as PEP 440 has them; a leading v
    is allowed in tags, tags that are not versions match no range, and pre-releases only one that
    names a pre-release). Raises NoMatchingTags
    where nothing matches, since a wish that asks for nothing is a mistake, and InvalidPattern.
    """
    return _Choice(patterns, exclude).among(tags)


class _Choice:
    def __init__(self, patterns: Sequence[str], exclude: Sequence[str]) -> None:
        self._wanted = [_matcher(pattern) for pattern in patterns]
        self._unwanted = [_matcher(pattern, excludes=True) for pattern in exclude]
        self._asked = ", ".join(patterns) + (f" without {', '.join(exclude)}" if exclude else "")

    def among(self, tags: Iterable[str]) -> list[str]:
        available = sorted(set(tags), key=natural)
        chosen = [tag for tag in available if self._takes(tag)]
        if not chosen:
            there = f": {_sample(available)}" if available else ""
            raise NoMatchingTags(
                f"no tag matches {self._asked}", why=f"there are {len(available)} tags{there}"
            )
        return chosen

    def _takes(self, tag: str) -> bool:
        if not any(matches(tag) for matches in self._wanted):
            return False
        return not any(matches(tag) for matches in self._unwanted)


class _Range:
    def __init__(self, pattern: str, excludes: bool) -> None:
        try:
            self._specifiers = SpecifierSet(pattern)
        except InvalidSpecifier as error:
            raise InvalidPattern(
                f"{pattern!r} is not a version range", hint="write for example '>=1.8,<2'"
            ) from error
        # Pre-releases are wished only by a range that names one; to exclude, they count always.
        self._prereleases = excludes or bool(self._specifiers.prereleases)

    def __call__(self, tag: str) -> bool:
        try:
            version = Version(tag)
        except InvalidVersion:
            return False
        return self._specifiers.contains(version, prereleases=self._prereleases)


class _Glob:
    def __init__(self, pattern: str) -> None:
        self._matches = re.compile(fnmatch.translate(pattern)).match

    def __call__(self, tag: str) -> bool:
        return self._matches(tag) is not None


def _matcher(pattern: str, *, excludes: bool = False) -> _Range | _Glob:
    return _Range(pattern, excludes) if _RANGE.match(pattern) else _Glob(pattern)


def natural(tag: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key by which 1.10 comes after 1.9."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", tag)
        if part
    )


def _sample(tags: Sequence[str]) -> str:
    return ", ".join(tags[:5]) + (", …" if len(tags) > 5 else "")
