"""The packages of an image, from the package databases of its layers.

A database counts if its file is visible in the flat image: one that a higher layer replaces or
deletes, or that is in a directory which a higher layer hides, does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from publisher.layers.index import LayerIndex
from publisher.layers.partial_merge import merged_at
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


def image_packages(
    repository: Repository,
    name: str,
    digests: Sequence[str],
    read: Callable[[str], LayerPackages] | None = None,
) -> ImagePackages:
    """Return the packages of an image.

    Args:
        repository: Contains the layers, published or staged.
        name: The name of the image, for the result.
        digests: The digests of its layers, from bottom to top.
        read: Returns the packages of a layer; by default `layer_packages`.

    Raises: as `publisher.repository.packages.layer_packages`.
    """
    read = read or partial(layer_packages, repository)
    layers = [read(digest) for digest in digests]
    visible = _visible_databases(repository, digests, layers)
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


def _visible_databases(
    repository: Repository, digests: Sequence[str], layers: Sequence[LayerPackages]
) -> list[_Visible]:
    """Return the databases that are visible in the flat image."""
    if not any(layer.databases for layer in layers):
        return []
    if len(layers) == 1:
        [layer] = layers
        return [_Visible(e.path, e, e.path in layer.unreadable) for e in layer.databases]
    known = [{database.path: database for database in layer.databases} for layer in layers]
    visible = []
    indexes = [LayerIndex(partial(repository.open_index, digest), digest) for digest in digests]
    for item in merged_at(indexes, {path for layer in known for path in layer}):
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
