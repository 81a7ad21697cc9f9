"""The orders of versions of dpkg, rpm and apk. Each function returns -1, 0 or 1.

Sources: deb-version(7); rpm-version(7); the page "Package version" of apk-tools.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest

from publisher.lazy import pattern

Order = int

_EPOCH = pattern(r"([0-9]+):")
_PARTS = pattern(r"([^0-9]*)([0-9]*)")
_RPM_SEGMENT = pattern(r"[0-9]+|[A-Za-z]+|[~^]")
_APK = pattern(
    r"(?P<numbers>[0-9]+(?:\.[0-9]+)*)(?P<letter>[a-z]?)(?P<suffixes>(?:_[a-z]+[0-9]*)*)"
    r"(?:~[0-9a-f]+)?(?:-r(?P<revision>[0-9]+))?"
)
_APK_SUFFIX = pattern(r"_([a-z]+)([0-9]*)")
_APK_BEFORE = ("alpha", "beta", "pre", "rc")
_APK_SUFFIXES = (*_APK_BEFORE, "cvs", "svn", "git", "hg", "p")
_NUMBER, _LETTER, _SUFFIX, _SUFFIX_NUMBER, _REVISION, _END = range(6)


def order(one: object, other: object) -> Order:
    """Compare two values of one type that can be sorted."""
    return int(one > other) - int(one < other)  # type: ignore[operator]


def split_evr(version: str) -> tuple[str | None, str, str | None]:
    """Return epoch, version and revision of dpkg or rpm; None for one that is missing."""
    match = _EPOCH.match(version)
    rest = version[match.end() :] if match else version
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, ""
    return match[1] if match else None, upstream, revision if dash else None


def compare_dpkg(one: str, other: str) -> Order:
    """Compare as `dpkg --compare-versions`."""
    return _compare_evr(one, other, _dpkg_part)


def compare_rpm(one: str, other: str) -> Order:
    """Compare epoch, version and release as rpm does."""
    return _compare_evr(one, other, rpmvercmp)


def _compare_evr(one: str, other: str, compare_part: Callable[[str, str], Order]) -> Order:
    (epoch, *parts), (other_epoch, *other_parts) = split_evr(one), split_evr(other)
    result = order(int(epoch or 0), int(other_epoch or 0))
    for text, other_text in zip(parts, other_parts, strict=True):
        result = result or compare_part(text or "", other_text or "")
    return result


def _dpkg_part(one: str, other: str) -> Order:
    pairs = zip_longest(_PARTS.findall(one), _PARTS.findall(other), fillvalue=("", ""))
    for (text, number), (other_text, other_number) in pairs:
        result = order(_dpkg_text(text), _dpkg_text(other_text))
        result = result or order(int(number or 0), int(other_number or 0))
        if result:
            return result
    return 0


def _dpkg_text(text: str) -> list[int]:
    """Return a list that sorts as dpkg does: "~" first, then the end, letters, all others."""
    ranks = [
        -1 if c == "~" else ord(c) if c.isascii() and c.isalpha() else ord(c) + 256 for c in text
    ]
    return [*ranks, 0]


def rpmvercmp(one: str, other: str) -> Order:
    """Compare two versions, or two releases, segment by segment."""
    pairs = zip_longest(_RPM_SEGMENT.findall(one), _RPM_SEGMENT.findall(other), fillvalue="")
    return next((found for pair in pairs if (found := _rpm_segment(*pair))), 0)


def _rpm_segment(one: str, other: str) -> Order:
    """Compare two segments; an empty one is the end of its version."""
    if one == other:
        return 0
    # "~" sorts before everything, also the end; "^" only after the end.
    for sign, at_end in (("~", -1), ("^", 1)):
        if one == sign:
            return at_end if not other else -1
        if other == sign:
            return -at_end if not one else 1
    if not one or not other:
        return 1 if one else -1
    if one.isdigit() != other.isdigit():
        return 1 if one.isdigit() else -1
    return order(int(one), int(other)) if one.isdigit() else order(one, other)


def compare_apk(one: str, other: str) -> Order | None:
    """Compare as `apk version -t`; None if a version is not valid."""
    tokens, other_tokens = _apk_tokens(one), _apk_tokens(other)
    if tokens is None or other_tokens is None:
        return None
    for (rank, value), (other_rank, other_value) in zip(tokens, other_tokens, strict=False):
        if rank == other_rank:
            result = _apk_values(rank, value, other_value)
            if result:
                return result
            continue
        if rank == _SUFFIX and value in _APK_BEFORE:
            return -1
        if other_rank == _SUFFIX and other_value in _APK_BEFORE:
            return 1
        return order(other_rank, rank)
    return 0


def _apk_values(rank: int, value: str, other: str) -> Order:
    if rank == _SUFFIX:
        return order(_APK_SUFFIXES.index(value), _APK_SUFFIXES.index(other))
    if rank in (_SUFFIX_NUMBER, _REVISION):
        return order(int(value or 0), int(other or 0))
    if rank == _NUMBER and not (value.startswith(".0") or other.startswith(".0")):
        return order(int(value.lstrip(".")), int(other.lstrip(".")))
    return order(value, other)


def _apk_tokens(version: str) -> list[tuple[int, str]] | None:
    match = _APK.fullmatch(version)
    if match is None:
        return None
    first, *others = match["numbers"].split(".")
    tokens = [(_NUMBER, first), *((_NUMBER, f".{number}") for number in others)]
    if match["letter"]:
        tokens.append((_LETTER, match["letter"]))
    for suffix, number in _APK_SUFFIX.findall(match["suffixes"]):
        if suffix not in _APK_SUFFIXES:
            return None
        tokens.append((_SUFFIX, suffix))
        if number:
            tokens.append((_SUFFIX_NUMBER, number))
    if match["revision"]:
        tokens.append((_REVISION, match["revision"]))
    return [*tokens, (_END, "")]
