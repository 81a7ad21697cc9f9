"""The size of a merged image, from its layers in memory. Pure.

The rules are those of `publisher.layers.merge`. A directory that only one of the layers has is
counted as a whole, so that the time depends on the directories that layers have in common.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field

from publisher.browse.statistics.layer_tree import (
    DIRECTORY,
    LINKED,
    OTHER,
    WHITEOUT,
    LayerTree,
)
from publisher.entry import Entry, EntryType, Generated, Merged, sort_key
from publisher.layers.catalogs import CatalogPlanner
from publisher.lazy import dataclass
from publisher.runtimes.flat_files import insert


@dataclass(frozen=True, slots=True)
class FlatSize:
    """The size of a merged image.

    Attributes:
        entries: The number of its paths.
        size: The bytes of its files; one with several names is counted once.
        catalogs: The entries of each catalog of CVMFS that is planned for it, by the directory in
            which the catalog begins.
    """

    entries: int
    size: int
    catalogs: Mapping[str, int]


def flat_size(layers: Sequence[LayerTree], generated: Iterable[Generated], limit: int) -> FlatSize:
    """Return the size of the image of these layers, from bottom to top.

    Args:
        layers: The layers; each of them is complete.
        generated: The entries that are added to the image where it has none, sorted by path.
        limit: The most entries of a catalog of CVMFS.
    """
    image = _Image(layers)
    added = _inserted(image, list(generated))
    return _Count(image, added, limit).count()


@dataclass(frozen=True, slots=True)
class _Found:
    """What an image has at a path: a value, the layer that it is from, and for a directory all
    layers of which it consists, from bottom to top."""

    value: int
    layer: int
    layers: tuple[int, ...] = ()


class _Image:
    """Layers that are looked at together."""

    def __init__(self, layers: Sequence[LayerTree]) -> None:
        self.layers = layers
        self._found: dict[str, _Found | None] = {}

    def root(self) -> tuple[int, ...]:
        """Return the layers of which the root directory consists, from bottom to top."""
        chosen = []
        for number in reversed(range(len(self.layers))):
            directory = self.layers[number].directories.get("")
            if directory is not None:
                chosen.append(number)
                if directory.opaque:
                    break
        return tuple(reversed(chosen))

    def at(self, path: str) -> _Found | None:
        """Return what the image has at `path`; None if it has nothing."""
        if path not in self._found:
            self._found[path] = self._find(path)
        return self._found[path]

    def _find(self, path: str) -> _Found | None:
        if not path:
            root = self.root()
            return _Found(DIRECTORY, root[-1], root) if root else None
        above, _, name = path.rpartition("/")
        directory = self.at(above)
        if directory is None or directory.value != DIRECTORY:
            return None
        chosen: list[int] = []
        for number in reversed(directory.layers):
            layer = self.layers[number]
            value = layer.value(above, name)
            if value is None:
                continue
            if value != DIRECTORY:
                if chosen:
                    break
                return None if value == WHITEOUT else _Found(value, number)
            chosen.append(number)
            if layer.directories[path].opaque:
                break
        return _Found(DIRECTORY, chosen[0], tuple(reversed(chosen))) if chosen else None

    def entry(self, path: str) -> Merged | None:
        """Return the entry at `path`, as far as `insert` looks at it."""
        found = self.at(path)
        if found is None:
            return None
        target = self.layers[found.layer].targets.get(path) if found.value == OTHER else None
        kind = EntryType.DIRECTORY if found.value == DIRECTORY else EntryType.FILE
        if target is not None:
            kind = EntryType.SYMLINK
        return Merged(Entry(path, kind, target=target or ""), found.layer, path)


def _inserted(image: _Image, generated: Sequence[Generated]) -> list[Generated]:
    """Return what `insert` adds to the image.

    It looks only at entries at and above the paths that may be added, of which links in the image
    can lead to further ones.
    """
    wanted = {each.entry.path for each in generated}
    wanted |= {above for path in wanted for above in _parents(path)}
    while True:
        entries = [entry for path in wanted if (entry := image.entry(path)) is not None]
        entries.sort(key=lambda merged: sort_key(merged.entry.path))
        added = [each for each in insert(entries, generated) if isinstance(each, Generated)]
        further = {
            path
            for each in added
            for path in (each.entry.path, *_parents(each.entry.path))
            if path not in wanted and image.at(path) is not None
        }
        if not further:
            return added
        wanted |= further


def _parents(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path


@dataclass(slots=True)
class _Seen:
    """The names of files with several names that are in the image, by layer.

    `names` are single ones, and `trees` directories that are in the image as a whole.
    """

    names: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    trees: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    def has(self, layer: int, path: str) -> bool:
        """Return whether the name is in the image."""
        trees = self.trees[layer]
        return path in self.names[layer] or any(above in trees for above in _parents(path))


_UNSEEN: list[int] = []
"""In place of the layers of a directory: no layer has the name so far."""


class _Count:
    """Counts the entries of an image, directory by directory."""

    def __init__(self, image: _Image, added: Sequence[Generated], limit: int) -> None:
        self._image = image
        self._limit = limit
        self._planner = CatalogPlanner(limit)
        self._seen = _Seen()
        self._entries = self._size = 0
        self._added: defaultdict[str, list[Entry]] = defaultdict(list)
        self._opened = {""}
        for each in added:
            path = each.entry.path
            if path:
                self._added[path.rpartition("/")[0]].append(each.entry)
                self._opened.update(_parents(path))

    def count(self) -> FlatSize:
        waiting: list[tuple[str, Sequence[int]] | None] = [("", self._image.root())]
        while waiting:
            item = waiting.pop()
            if item is None:
                self._planner.leave()
                continue
            path, layers = item
            if len(layers) == 1 and path not in self._opened and self._whole(path, layers[0]):
                continue
            self._planner.enter(path)
            waiting.append(None)
            waiting += self._directory(path, layers)
        for number, layer in enumerate(self._image.layers):
            for size, names in layer.linked:
                if any(self._seen.has(number, name) for name in names):
                    self._size += size
        return FlatSize(self._entries, self._size, self._planner.finish())

    def _whole(self, path: str, number: int) -> bool:
        """Count a directory of a single layer at once, unless it may have several catalogs."""
        layer = self._image.layers[number]
        directory = layer.directories[path]
        if directory.entries > self._limit:
            return False
        self._planner.add_tree(path, directory.entries)
        self._entries += directory.entries
        self._size += directory.size
        if layer.linked:
            self._seen.trees[number].add(path)
        return True

    def _directory(self, path: str, layers: Sequence[int]) -> Iterator[tuple[str, Sequence[int]]]:
        """Count what is directly in a directory; yield those in it, with their layers."""
        start = f"{path}/" if path else ""
        others = 0
        decided: dict[str, list[int] | None] = {}
        """The layers of each directory from top to bottom; None if lower layers are hidden."""
        below: list[tuple[str, list[int]]] = []
        for number in reversed(layers):
            directories = self._image.layers[number].directories
            for name, value in directories[path].children():
                known = decided.get(name, _UNSEEN)
                if known is None:
                    continue
                if value == DIRECTORY:
                    if known is _UNSEEN:
                        known = []
                        below.append((start + name, known))
                    known.append(number)
                    opaque = directories[start + name].opaque
                    decided[name] = None if opaque else known
                    continue
                decided[name] = None
                if known is _UNSEEN and value != WHITEOUT:
                    others += 1
                    self._other(number, start + name, value)
        for entry in self._added.get(path, ()):
            if entry.type is EntryType.DIRECTORY:
                below.append((entry.path, []))
            else:
                others += 1
                self._size += entry.size if entry.type is EntryType.FILE else 0
        self._planner.add(others)
        self._entries += 1 + others
        for child, numbers in below:
            yield child, numbers[::-1]

    def _other(self, number: int, path: str, value: int) -> None:
        """Count the size of what is no directory, or remember a file with several names."""
        if value > 0:
            self._size += value
        elif value == LINKED:
            self._seen.names[number].add(path)
