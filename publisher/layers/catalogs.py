"""Where nested catalogs go: an index in, directories out. Pure.

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
    """A directory on the way down: how many entries it has by itself, and subtrees to cut off."""

    path: str
    entries: int = 1
    below: list[tuple[int, str]] = field(default_factory=list)


def plan_catalogs(entries: Iterable[Entry], limit: int = DEFAULT_LIMIT) -> frozenset[str]:
    """The directories in which nested catalogs start, so that no catalog has over `limit` entries.

    `entries` come sorted, parents before children, as from an index or a merge; the root, "", has a
    catalog anyway and is never in the result. A catalog exceeds the limit only where a single
    directory has that many children: those cannot be told apart. There, only subtrees of at least a
    tenth of the limit are cut off, since crowds of tiny catalogs would help nobody.
    """
    if limit < 2:
        raise ValueError(f"a catalog holds a directory and what is in it: {limit} is too few")
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
    """Settle the innermost directory, and count what is left of it in the one above."""
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
