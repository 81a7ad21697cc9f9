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
    planner = CatalogPlanner(limit)
    for entry in entries:
        planner.leave_until(entry.path)
        if entry.type is EntryType.DIRECTORY:
            planner.enter(entry.path)
        else:
            planner.add(1)
    return planner.finish()


class CatalogPlanner:
    """Plans the catalogs of a tree, one directory after the other.

    Args:
        limit: The most entries of a catalog.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        if limit < 2:
            raise ValueError(f"a catalog has a directory and its entries: {limit} is too small")
        self._limit = limit
        self._chosen: dict[str, int] = {}
        self._open: list[_Directory] = []
        self._size = 0

    def enter(self, path: str) -> None:
        """Begin a directory, which is in the one that was begun last."""
        self._open.append(_Directory(path))

    def add(self, count: int) -> None:
        """Count entries of the directory that are not directories."""
        self._open[-1].entries += count

    def add_tree(self, path: str, entries: int) -> None:
        """Count a whole directory, which has at most `limit` entries including itself."""
        self._open[-1].below.append((entries, path))

    def leave(self) -> None:
        """End the directory: split subtrees off, and count its rest in the directory above."""
        directory = self._open.pop()
        limit = self._limit
        below = sorted(directory.below)
        size = directory.entries + sum(count for count, _ in below)
        splittable = directory.entries + len(below) <= limit
        least = 2 if splittable else max(2, limit // _SMALLEST_PART)
        while size > limit and below and below[-1][0] >= least:
            count, path = below.pop()
            self._chosen[path] = count
            size -= count - 1
        self._size = size
        if self._open:
            self._open[-1].below.append((size, directory.path))

    def leave_until(self, path: str) -> None:
        """End all directories that `path` is not below."""
        while self._open and not _is_below(path, self._open[-1].path):
            self.leave()

    def finish(self) -> dict[str, int]:
        """End all directories; return the number of entries of each catalog, by its directory."""
        while self._open:
            self.leave()
        return self._chosen | {"": self._size}


def _is_below(path: str, directory: str) -> bool:
    return not directory or path.startswith(f"{directory}/")
