"""Decide in which directories nested catalogs of CVMFS begin. Pure.

CVMFS stores the entries of a tree in catalogs, which clients download as a whole. A directory in
which a nested catalog begins is an entry of that catalog and of the one above.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from publisher.entry import Entry, EntryType
from publisher.lazy import dataclass

DEFAULT_LIMIT = 100_000
_SMALLEST_PART = 10


@dataclass(slots=True)
class _Directory:
    """A directory that is being counted: its entries, and the subtrees that can be split off."""

    path: str
    entries: int = 1
    below: list[tuple[int, str]] = field(default_factory=list)


def plan_catalogs(entries: Iterable[Entry], limit: int = DEFAULT_LIMIT) -> frozenset[str]:
    """Return the directories in which nested catalogs begin, so that none exceeds `limit` entries.

    `entries` are sorted, parents before children, as in an index or a merge. The root, "", always
    has a catalog and is never in the result. A catalog exceeds the limit only if a single directory
    has that many children, which cannot be split. In such a directory only subtrees of at least a
    tenth of the limit are split off, to avoid many small catalogs.
    """
    return frozenset(catalog_sizes(entries, limit)) - {""}


def catalog_sizes(entries: Iterable[Entry], limit: int = DEFAULT_LIMIT) -> dict[str, int]:
    """Return how many entries each catalog of the plan has, by the directory in which it begins.

    The root is "". The arguments are those of `plan_catalogs`. A directory in which a nested
    catalog begins is counted in that catalog and in the one above.
    """
    if limit < 2:
        raise ValueError(f"a catalog has a directory and its entries: {limit} is too small")
    chosen: dict[str, int] = {}
    size = 0
    open_directories: list[_Directory] = []
    for entry in entries:
        while open_directories and not _is_below(entry.path, open_directories[-1].path):
            _close(open_directories, limit, chosen)
        if entry.type is EntryType.DIRECTORY:
            open_directories.append(_Directory(entry.path))
        else:
            open_directories[-1].entries += 1
    while open_directories:
        size = _close(open_directories, limit, chosen)
    return chosen | {"": size}


def _close(open_directories: list[_Directory], limit: int, chosen: dict[str, int]) -> int:
    """Split subtrees off the innermost directory, and count its rest in the directory above.

    Returns the size of the rest.
    """
    directory = open_directories.pop()
    below = sorted(directory.below)
    size = directory.entries + sum(count for count, _ in below)
    splittable = directory.entries + len(below) <= limit
    least = 2 if splittable else max(2, limit // _SMALLEST_PART)
    while size > limit and below and below[-1][0] >= least:
        count, path = below.pop()
        chosen[path] = count
        size -= count - 1
    if open_directories:
        open_directories[-1].below.append((size, directory.path))
    return size


def _is_below(path: str, directory: str) -> bool:
    return not directory or path.startswith(f"{directory}/")
