"""The entries of one layer in memory, as compactly as the sizes of merged images need them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import field

from publisher.entry import EntryType
from publisher.layers.index_lines import Row
from publisher.lazy import dataclass

DIRECTORY = -1
WHITEOUT = -2
OTHER = -3
"""A symlink, device or FIFO: it has no bytes."""
LINKED = -4
"""One of the names of a file that has several: its bytes are counted with the file."""

_VALUES = {str(EntryType.DIRECTORY): DIRECTORY, str(EntryType.WHITEOUT): WHITEOUT}


@dataclass(slots=True)
class Directory:
    """A directory of a layer.

    Attributes:
        opaque: Whether it hides what lower layers have in it.
        names: The names of its children, separated by slashes.
        values: For each of them the size in bytes of a file, or one of the constants above.
        entries: The number of paths that it adds to an image by itself: its own, and all below.
        size: The bytes of the files among them that have one name.
    """

    opaque: bool
    names: str = ""
    values: array[int] = field(default_factory=lambda: array("q"))
    entries: int = 1
    size: int = 0

    def children(self) -> Iterable[tuple[str, int]]:
        """Return the name and the value of each child."""
        return zip(self.names.split("/"), self.values, strict=False)  # "" has no value


@dataclass(slots=True)
class LayerTree:
    """A layer.

    Attributes:
        directories: Its directories by path, parents before children.
        targets: The texts of its symlinks by path.
        linked: The files with several names: their size, and these names.
        entries: The number of its entries.
        is_complete: False if it has hard links to files of lower layers, which are not in `linked`.
    """

    directories: dict[str, Directory]
    targets: dict[str, str]
    linked: list[tuple[int, list[str]]]
    entries: int
    is_complete: bool
    _named: dict[str, Mapping[str, int]] = field(default_factory=dict)

    def value(self, directory: str, name: str) -> int | None:
        """Return the value of a child of `directory`; None if it is missing."""
        found = self.directories.get(directory)
        if found is None:
            return None
        if directory not in self._named:
            self._named[directory] = dict(found.children())
        return self._named[directory].get(name)


def layer_tree(rows: Iterable[Row]) -> LayerTree:
    """Return the layer with these rows of its index, parents before children."""
    directories: dict[str, Directory] = {}
    names: dict[str, list[str]] = {}
    targets: dict[str, str] = {}
    linked: dict[str, tuple[int, list[str]]] = {}
    complete = True
    count = 0
    parent, here, values = None, None, None
    for path, kind, size, _, target, links, opaque in rows:
        count += 1
        value = size
        if kind == "f":
            if links > 1:
                value = LINKED
                linked.setdefault(path, (size, []))[1].append(path)
        elif kind == "h":
            value = LINKED
            complete = complete and links > 0
            linked.setdefault(target, (size, []))[1].append(path)
        elif kind == "l":
            value = OTHER
            targets[path] = target
        else:
            value = _VALUES.get(kind, OTHER)
        above, _, name = path.rpartition("/")
        if kind == "d":
            directories[path] = Directory(opaque)
            names[path] = []
            if not path:
                continue
        if above != parent:
            parent, here = above, names.get(above)
            values = directories[above].values if here is not None else None
        if here is not None and values is not None:  # else an entry without a parent
            here.append(name)
            values.append(value)
    for path, inside in names.items():
        directories[path].names = "/".join(inside)
    _add_up(directories)
    return LayerTree(directories, targets, list(linked.values()), count, complete)


def _add_up(directories: dict[str, Directory]) -> None:
    """Count what is in each directory and below it."""
    for path in reversed(directories):
        directory = directories[path]
        sizes = directory.values
        directory.size += sum(size for size in sizes if size > 0)
        directory.entries += len(sizes) - sizes.count(WHITEOUT) - sizes.count(DIRECTORY)
        if path:
            above = directories.get(path.rpartition("/")[0])
            if above is not None:
                above.size += directory.size
                above.entries += directory.entries
