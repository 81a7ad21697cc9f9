"""The packages of an image, from the package databases of its layers.

A database counts if its file is visible in the flat image: one that a higher layer replaces or
deletes, or that is in a directory which a higher layer hides, does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile

from publisher.entry import Entry, Merged
from publisher.layers.index import LayerIndex
from publisher.layers.partial_merge import merge_found, with_parents
from publisher.lazy import dataclass
from publisher.packages.model import (
    Database,
    InstalledPackage,
    LayerPackages,
    Package,
    PackageType,
)
from publisher.packages.places import place_of
from publisher.repository.packages import layer_packages
from publisher.repository.protocol import Repository


@dataclass(frozen=True, slots=True)
class SkippedDatabase:
    """A database, or a part of it, that was not read. `path` is "" for databases of a layer."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class ImagePackages:
    """What the package databases of one image list.

    Attributes:
        name: The name of the image.
        distribution: The distribution (os-release), as ID and VERSION_ID; None if it is unknown.
        packages: Sorted by type, name, version and path.
        skipped: What was not read, by path.
        unreadable: Whether a part of `skipped` can be read once the file system, or the permissions
            of a file, allow it.
    """

    name: str
    distribution: Package | None
    packages: tuple[InstalledPackage, ...]
    skipped: tuple[SkippedDatabase, ...]
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class _Visible:
    """A database that the flat image has at `path`; `unreadable` as in `LayerPackages`."""

    path: str
    database: Database
    unreadable: bool


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer of the image that was read last.

    `needed` are the paths of databases in it and in the layers below, with all directories above
    them. `found` are the entries that its index has at these paths; None if they were not needed.
    """

    digest: str
    packages: LayerPackages
    needed: frozenset[str]
    found: Sequence[Entry] | None


class ImageLayers:
    """Reads the layers of one image after the other.

    What depends only on layers that the image before has at the bottom as well is not read again,
    so that images should be in the order of their layers.

    Args:
        repository: Contains the layers, published or staged.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._stack: list[_Layer] = []
        self._without: set[str] = set()

    def packages(self, digests: Sequence[str]) -> list[LayerPackages]:
        """Return the packages of each layer, from bottom to top.

        Raises: as `publisher.repository.packages.layer_packages`.
        """
        pairs = zip(self._stack, digests, strict=False)
        known = list(takewhile(lambda pair: pair[0].digest == pair[1], pairs))
        del self._stack[len(known) :]
        for digest in digests[len(known) :]:
            packages = self._read(digest)
            needed = self._stack[-1].needed if self._stack else frozenset[str]()
            if packages.databases:
                needed |= with_parents(each.path for each in packages.databases)
            self._stack.append(_Layer(digest, packages, needed, None))
        return [layer.packages for layer in self._stack]

    def merged(self) -> Iterator[Merged]:
        """Return the entries of the last image that its databases depend on, and perhaps others.

        Raises:
            LayerError: An index is damaged.
        """
        indexes = [
            LayerIndex(partial(self._repository.open_index, layer.digest), layer.digest)
            for layer in self._stack
        ]
        found: list[Sequence[Entry]] = []
        for at, (layer, index) in enumerate(zip(self._stack, indexes, strict=True)):
            entries = layer.found
            if entries is None:
                entries = index.find(layer.needed) if layer.needed else ()
                self._stack[at] = replace(layer, found=entries)
            found.append(entries)
        return merge_found(indexes, found)

    def _read(self, digest: str) -> LayerPackages:
        """Return the packages of a layer; without databases, its index is read once only."""
        if digest in self._without:
            return LayerPackages()
        found = layer_packages(self._repository, digest)
        if found == LayerPackages():
            self._without.add(digest)
        return found


def image_packages(
    repository: Repository,
    name: str,
    digests: Sequence[str],
    reader: ImageLayers | None = None,
) -> ImagePackages:
    """Return the packages of an image.

    Args:
        repository: Contains the layers, published or staged.
        name: The name of the image, for the result.
        digests: The digests of its layers, from bottom to top.
        reader: Reads the layers of several images.

    Raises: as `publisher.repository.packages.layer_packages`.
    """
    reader = reader or ImageLayers(repository)
    layers = reader.packages(digests)
    visible = _visible_databases(reader, layers)
    skipped = [SkippedDatabase(e.path, e.database.skipped) for e in visible if e.database.skipped]
    # A layer may be listed twice.
    of_layers = dict(zip(digests, layers, strict=True)).values()
    skipped += [SkippedDatabase("", each.skipped) for each in of_layers if each.skipped]
    return ImagePackages(
        name,
        _distribution(visible),
        tuple(sorted(_installed(visible), key=InstalledPackage.order)),
        tuple(sorted(skipped, key=lambda each: each.path)),
        any(each.unreadable for each in visible),
    )


def _visible_databases(reader: ImageLayers, layers: Sequence[LayerPackages]) -> list[_Visible]:
    """Return the databases that are visible in the flat image."""
    if not any(layer.databases for layer in layers):
        return []
    if len(layers) == 1:
        [layer] = layers
        return [_Visible(e.path, e, e.path in layer.unreadable) for e in layer.databases]
    known = [{database.path: database for database in layer.databases} for layer in layers]
    visible = []
    for item in reader.merged():
        database = known[item.layer].get(item.source)
        # A hard link elsewhere to a database is not one.
        if database is not None and place_of(item.entry.path) is not None:
            is_unreadable = database.path in layers[item.layer].unreadable
            visible.append(_Visible(item.entry.path, database, is_unreadable))
    return visible


def _distribution(visible: Iterable[_Visible]) -> Package | None:
    """Return what os-release names; /etc/os-release takes precedence."""
    found = {
        each.path: each.database
        for each in visible
        if each.database.type == PackageType.OS and each.database.packages
    }
    return found[min(found)].packages[0] if found else None


def _installed(visible: Iterable[_Visible]) -> Iterator[InstalledPackage]:
    for each in visible:
        kind = PackageType(each.database.type)
        if kind is not PackageType.OS:
            for package in each.database.packages:
                yield InstalledPackage(kind, package, each.path)
