"""Tag patterns of wish lists and commands. Pure.

A pattern is a tag, a glob ("1.7.*"), or a version range (">=1.8,<2", as in PEP 440). For ranges, a
tag may begin with "v", a tag that is not a version never matches, and a pre-release only matches a
range that names a pre-release.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence

from publisher.errors import PublisherError
from publisher.lazy import pattern

_RANGE_START = pattern(r"\s*[<>=!~]")
_GLOB = pattern(r"[A-Za-z0-9._*?\[\]!-]{1,128}")
_OPEN_BRACKET = pattern(r"\[!?[^\]]*\Z")

_Matcher = Callable[[str], bool]


class InvalidPattern(PublisherError):
    """A string is neither a tag, nor a glob, nor a version range."""


class TagPatterns:
    """Selects the tags that a pattern of `wanted` matches and no pattern of `unwanted`.

    Raises:
        InvalidPattern: One of the patterns is malformed.
    """

    def __init__(self, wanted: Sequence[str], unwanted: Sequence[str] = ()) -> None:
        self._wanted = [_matcher(pattern) for pattern in wanted]
        self._unwanted = [_matcher(pattern, excludes=True) for pattern in unwanted]
        self._text = ", ".join(wanted) + (f" without {', '.join(unwanted)}" if unwanted else "")

    def __str__(self) -> str:
        return self._text

    def among(self, tags: Iterable[str]) -> list[str]:
        """Return the selected `tags` without duplicates, in natural order."""
        return sorted({tag for tag in tags if self._selects(tag)}, key=natural)

    def _selects(self, tag: str) -> bool:
        if not any(matches(tag) for matches in self._wanted):
            return False
        return not any(matches(tag) for matches in self._unwanted)


def check_pattern(text: str) -> str:
    """Return `text` if it is a valid pattern; else raise InvalidPattern."""
    _matcher(text)
    return text


def check_brackets(glob: str) -> None:
    """Raise InvalidPattern if a '[' is not closed: such a glob would match it as a letter."""
    if _OPEN_BRACKET.search(glob):
        raise InvalidPattern(
            f"the '[' in {glob!r} is not closed", hint="write for example '1.[0-9]'"
        )


def natural(tag: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key by which 1.10 comes after 1.9."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", tag)
        if part
    )


def _matcher(text: str, *, excludes: bool = False) -> _Matcher:
    if _RANGE_START.match(text):
        return _range(text, excludes)
    check_brackets(text)
    if not _GLOB.fullmatch(text):
        raise InvalidPattern(
            f"{text!r} can match no tag",
            hint="write a tag, a glob such as '1.*', or a version range such as '>=1.8,<2'",
        )
    matches = re.compile(fnmatch.translate(text)).match
    return lambda tag: matches(tag) is not None


def _range(text: str, excludes: bool) -> _Matcher:
    # Loaded for ranges only: few tags are ranges.
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        specifiers = SpecifierSet(text)
    except InvalidSpecifier as error:
        raise InvalidPattern(
            f"{text!r} is not a version range", hint="write it as '>=1.8,<2'"
        ) from error
    # Only a range that names a pre-release selects pre-releases; an exclusion always matches them.
    prereleases = excludes or bool(specifiers.prereleases)

    def matches(tag: str) -> bool:
        try:
            version = Version(tag)
        except InvalidVersion:
            return False
        return specifiers.contains(version, prereleases=prereleases)

    return matches
