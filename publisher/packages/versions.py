"""The order of versions, by the package manager; and versions of Python, Conda, R and npm.

A version that its package manager would refuse is compared as dpkg does, which accepts any text.

univers on PyPI has most of these orders, in more code and with three dependencies; those here are
compared with the package managers themselves in the tests.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from itertools import zip_longest

from publisher.lazy import pattern
from publisher.packages.model import PackageType
from publisher.packages.orders import (
    Order,
    compare_apk,
    compare_dpkg,
    compare_rpm,
    order,
    split_evr,
)

_SEMANTIC = pattern(
    r"[v=\s]*(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]*)?\s*", re.ASCII
)
_R = pattern(r"\d+(?:[.-]\d+)*", re.ASCII)
_CONDA = pattern(r"[*.+!_0-9a-z]+")
_CONDA_RUNS = pattern(r"[0-9]+|[*]+|[^0-9*]+")
_CondaItem = int | float | str


def compare(kind: PackageType, one: str, other: str) -> Order:
    """Return -1, 0 or 1 if `one` is lower than, equal to, or higher than `other`."""
    result = _COMPARE[kind](one, other)
    return compare_dpkg(one, other) if result is None else result


def without_details(kind: PackageType, version: str, like: str) -> str:
    """Return `version` with only those of its parts that `like` has as well.

    So "3.0.15" means all of the revisions "3.0.15-1" and "1:3.0.15-2.el9" of dpkg and rpm,
    "3.0.15-r1" of apk, and the local version "3.0.15+cpu" of Python.
    """
    if kind in (PackageType.DEB, PackageType.RPM):
        epoch, upstream, revision = split_evr(version)
        like_epoch, _, like_revision = split_evr(like)
        start = f"{epoch}:" if epoch is not None and like_epoch is not None else ""
        end = f"-{revision}" if revision is not None and like_revision is not None else ""
        return f"{start}{upstream}{end}"
    if kind is PackageType.APK and "-r" not in like:
        return re.sub(r"-r\d+$", "", version)
    if kind is PackageType.PYTHON and "+" not in like:
        return version.partition("+")[0]
    return version


def compare_python(one: str, other: str) -> Order | None:
    """Compare by PEP 440; None if a version is not valid."""
    from packaging.version import InvalidVersion, Version

    try:
        return order(Version(one), Version(other))
    except InvalidVersion:
        return None


def compare_semantic(one: str, other: str) -> Order | None:
    """Compare by Semantic Versioning 2.0.0, 11; missing numbers are 0. None if not valid."""
    match, other_match = _SEMANTIC.fullmatch(one), _SEMANTIC.fullmatch(other)
    if match is None or other_match is None:
        return None
    return order(_semantic(match), _semantic(other_match))


def _semantic(match: re.Match[str]) -> tuple[object, ...]:
    numbers = tuple(int(number or 0) for number in match.groups()[:3])
    if not match[4]:
        return (*numbers, (1,))
    parts = ((0, int(part), "") if part.isdigit() else (1, 0, part) for part in match[4].split("."))
    return (*numbers, (0, *parts))


def compare_r(one: str, other: str) -> Order | None:
    """Compare as R's `package_version`; None if a version is not valid."""
    if not (_R.fullmatch(one) and _R.fullmatch(other)):
        return None
    return order(*([int(part) for part in re.split(r"[.-]", text)] for text in (one, other)))


def compare_conda(one: str, other: str) -> Order | None:
    """Compare as conda's `VersionOrder`; None if a version is not valid."""
    parts, other_parts = _conda(one), _conda(other)
    if parts is None or other_parts is None:
        return None
    nothing: list[_CondaItem] = []
    for components, other_components in zip(parts, other_parts, strict=True):
        for items, other_items in zip_longest(components, other_components, fillvalue=nothing):
            for item, other_item in zip_longest(items, other_items, fillvalue=0):
                if item != other_item:
                    return order(_conda_key(item), _conda_key(other_item))
    return 0


def _conda_key(item: _CondaItem) -> tuple[int, _CondaItem]:
    return (0, item) if isinstance(item, str) else (1, item)


def _conda(version: str) -> tuple[list[list[_CondaItem]], list[list[_CondaItem]]] | None:
    """Return the components of the version with its epoch, and those of the local version."""
    text = version.strip().lower()
    if "-" in text and "_" not in text:
        text = text.replace("-", "_")
    if not _CONDA.fullmatch(text) or text.count("!") > 1 or text.count("+") > 1:
        return None
    text, _, local = text.partition("+")
    epoch, mark, rest = text.rpartition("!")
    if mark and not epoch.isdigit():
        return None
    # The underscore at the end of "1.0.1_" belongs to its last component: it precedes "1.0.1a".
    end = "_" if rest.endswith("_") else ""
    names = rest.removesuffix(end).replace("_", ".").split(".")
    names[-1] += end
    local_names = local.replace("_", ".").split(".") if local else []
    if not all(names) or not all(local_names):
        return None
    return [_conda_component(name) for name in [epoch or "0", *names]], [
        _conda_component(name) for name in local_names
    ]


def _conda_component(name: str) -> list[_CondaItem]:
    runs: list[_CondaItem] = [_conda_item(run) for run in _CONDA_RUNS.findall(name)]
    return runs if name[0].isdigit() else [0, *runs]


def _conda_item(run: str) -> _CondaItem:
    if run.isdigit():
        return int(run)
    if run == "post":
        return math.inf
    return "DEV" if run == "dev" else run  # in upper case it sorts before all other texts


_COMPARE: Mapping[PackageType, Callable[[str, str], Order | None]] = {
    PackageType.DEB: compare_dpkg,
    PackageType.APK: compare_apk,
    PackageType.RPM: compare_rpm,
    PackageType.PYTHON: compare_python,
    PackageType.CONDA: compare_conda,
    PackageType.R: compare_r,
    PackageType.NPM: compare_semantic,
    PackageType.OS: compare_dpkg,
}
