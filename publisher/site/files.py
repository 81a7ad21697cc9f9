"""The files of an image as pages: directories that begin on one page continue on others.

A page has the entries of one directory, and of those below it as far as they fit: pages begin where
nested catalogs of CVMFS would, with a lower limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field

from publisher.entry import Entry, EntryType
from publisher.layers.catalogs import plan_catalogs
from publisher.lazy import dataclass
from publisher.site.pages import FilesPage, Link, Node

PER_PAGE = 1000
"""How many entries a page has, unless a single directory has more."""

MOST_ENTRIES = 200_000
"""The most entries of an image that has pages of its files; it bounds the memory."""

_MOST_ON_PAGE = 5000
_DEEPEST = 24
"""How many levels of directories are nested on one page."""


def files_pages(entries: Iterable[Entry], directory: str) -> list[tuple[str, FilesPage]]:
    """Return the path and the contents of each page about the files of an image.

    Args:
        entries: The entries of the flat image, sorted, parents before children.
        directory: The directory of the pages.
    """
    found = list(entries)
    if not found or found[0].path:
        found.insert(0, Entry("", EntryType.DIRECTORY))
    starts = {"": 0} | {
        path: number for number, path in enumerate(sorted(_starts(found) - {""}), start=1)
    }
    names = {path: f"{directory}/{number or 'index'}.html" for path, number in starts.items()}
    root = _arrange(found)
    return [
        (names[directory.entry.path], _page(directory, names))
        for directory in _directories(root)
        if directory.entry.path in names
    ]


@dataclass(slots=True)
class _Directory:
    """A directory with its entries; size and count are those of all files below."""

    entry: Entry
    size: int = 0
    count: int = 0
    children: list[Entry | _Directory] = field(default_factory=list)


def _starts(entries: Sequence[Entry]) -> frozenset[str]:
    """Return the directories that begin a page: as many as needed, and deep ones."""
    deep = (
        entry.path
        for entry in entries
        if entry.type is EntryType.DIRECTORY and (entry.path.count("/") + 1) % _DEEPEST == 0
    )
    return plan_catalogs(entries, PER_PAGE) | frozenset(deep)


def _arrange(entries: Sequence[Entry]) -> _Directory:
    root = _Directory(entries[0])
    above = [root]
    for entry in entries[1:]:
        while above[-1].entry.path and not entry.path.startswith(f"{above[-1].entry.path}/"):
            _close(above)
        if entry.type is EntryType.DIRECTORY:
            directory = _Directory(entry)
            above[-1].children.append(directory)
            above.append(directory)
            continue
        above[-1].children.append(entry)
        above[-1].count += 1
        above[-1].size += entry.size if entry.type is EntryType.FILE else 0
    while len(above) > 1:
        _close(above)
    return root


def _close(above: list[_Directory]) -> None:
    closed = above.pop()
    above[-1].size += closed.size
    above[-1].count += closed.count


def _directories(root: _Directory) -> Iterable[_Directory]:
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        yield directory
        waiting += [each for each in directory.children if isinstance(each, _Directory)]


def _page(directory: _Directory, names: dict[str, str]) -> FilesPage:
    path = directory.entry.path
    parts = path.split("/") if path else []
    above = ["/".join(parts[:count]) for count in range(len(parts))]
    left = [_MOST_ON_PAGE]
    return FilesPage(
        path,
        tuple(Link(_name(each), names[each]) for each in above if each in names),
        directory.size,
        directory.count,
        _nodes(directory, names, left),
        is_cut=left[0] < 0,
    )


def _nodes(directory: _Directory, names: dict[str, str], left: list[int]) -> tuple[Node, ...]:
    """Return the entries of a directory for a page, of which `left` more entries fit."""
    nodes = []
    for child in directory.children:
        left[0] -= 1
        if left[0] < 0:
            break
        if not isinstance(child, _Directory):
            nodes.append(Node(_name(child.path), str(child.type), child.size, 1, child.target))
            continue
        name = _name(child.entry.path)
        page = names.get(child.entry.path, "")
        inner = () if page else _nodes(child, names, left)
        nodes.append(Node(name, "d", child.size, child.count, "", page, inner))
    return tuple(nodes)


def _name(path: str) -> str:
    return path.rpartition("/")[2]
