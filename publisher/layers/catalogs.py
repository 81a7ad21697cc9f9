"""Decides where nested catalogs of CVMFS start. Pure: an index in, directories out.

CVMFS keeps the entries of a tree in catalogs, which clients download whole; a directory in which a
nested catalog starts counts in the catalog above it and in its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from publisher.entry import Entry, EntryType

DEFAULT_LIMIT = 100_000
_SMALLEST_PART = 10


@dataclass(slots=True)
class _Directory:
    """A directory that is being counted: its own entries, and subtrees that can be cut off."""

    path: str
    entries: int = 1
    below: list[tuple[int, str]] = field(default_factory=list)


def plan_catalogs(entries: Iterable[Entry], limit: int = DEFAULT_LIMIT) -> frozenset[str]:
    """Return the directories in which nested catalogs start: no catalog has over `limit` entries.

    `entries` are sorted, parents before children, as in an index or a merge. The root, "", always
    has a catalog and is never in the result. A catalog exceeds the limit only if a single directory
    has that many children, which cannot be split. There, only subtrees of at least a tenth of the
    limit are cut off, since many tiny catalogs would not make it smaller.
    """
    if limit < 2:
        raise ValueError(f"a catalog holds a directory and its entries: {limit} is too few")
    chosen: set[str] = set()
    open_directories: list[_Directory] = []
    for entry in entries:
        while open_directories and not _is_below(entry.path, open_directories[-1].path):
            _close(open_directories, limit, chosen)
        if entry.type is EntryType.DIRECTORY:
            open_directories.append(_Directory(entry.path))
        else:
            open_directories[-1].entries += 1
    while open_directories:
        _close(open_directories, limit, chosen)
    return frozenset(chosen)


def _close(open_directories: list[_Directory], limit: int, chosen: set[str]) -> None:
    """Cut subtrees off the innermost directory, and count the rest of it in the one above."""
    directory = open_directories.pop()
    below = sorted(directory.below)
    size = directory.entries + sum(count for count, _ in below)
    splittable = directory.entries + len(below) <= limit
    least = 2 if splittable else max(2, limit // _SMALLEST_PART)
    while size > limit and below and below[-1][0] >= least:
        count, path = below.pop()
        chosen.add(path)
        size -= count - 1
    if open_directories:
        open_directories[-1].below.append((size, directory.path))


def _is_below(path: str, directory: str) -> bool:
    return not directory or path.startswith(f"{directory}/")
