"""The packages of published images, from the package databases of their layers.

A database counts if its file is visible in the flat image: one that a higher layer replaces or
deletes, or that is in a directory which a higher layer hides, does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from publisher.browse.contents import Change, layer_index, manifest_of, merged_at
from publisher.packages.model import (
    Database,
    InstalledPackage,
    LayerPackages,
    Package,
    PackageType,
)
from publisher.packages.places import place_of
from publisher.repository import Repository
from publisher.repository.packages import layer_packages
from publisher.repository.published import PublishedImage, find_name, load_image


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
    """

    name: str
    distribution: Package | None
    packages: tuple[InstalledPackage, ...]
    skipped: tuple[SkippedDatabase, ...]


@dataclass(frozen=True, slots=True)
class PackageChange:
    """A package whose versions differ between two images; sorted, empty if it is missing."""

    type: PackageType
    name: str
    old: tuple[str, ...]
    new: tuple[str, ...]

    @property
    def kind(self) -> Change:
        """Whether it was added, removed or changed."""
        if not self.old:
            return Change.ADDED
        return Change.CHANGED if self.new else Change.REMOVED


def image_packages(repository: Repository, text: str) -> ImagePackages:
    """Return the packages of one published image.

    Args:
        repository: Opened for reading.
        text: A published name, or an image reference.

    Raises:
        NotPublished: The image is not published.
        NoContents: Its manifest, or a layer or its index, is missing.
        RepositoryError: Databases have to be read from the tree, which is not mounted.
    """
    return packages_of(repository, load_image(repository, find_name(repository, text)))


def packages_of(
    repository: Repository, image: PublishedImage, without: set[str] | None = None
) -> ImagePackages:
    """Return the packages of `image`; see `image_packages`.

    Args:
        repository: Opened for reading.
        image: The image.
        without: The digests of layers that have no databases, which saves reading their indexes
            again; those of this image are added.
    """
    digests = [layer.digest for layer in manifest_of(image).layers]
    layers = {}
    for digest in digests:
        layer_index(repository, digest)  # raises NoContents
        if without is not None and digest in without:
            layers[digest] = LayerPackages()
            continue
        layers[digest] = layer_packages(repository, digest)
        if without is not None and layers[digest] == LayerPackages():
            without.add(digest)
    visible = visible_databases(repository, digests, [layers[digest] for digest in digests])
    skipped = [SkippedDatabase(path, each.skipped) for path, each in visible if each.skipped]
    skipped += [SkippedDatabase("", each.skipped) for each in layers.values() if each.skipped]
    return ImagePackages(
        image.name,
        _distribution(visible),
        tuple(sorted(_installed(visible), key=InstalledPackage.order)),
        tuple(sorted(skipped, key=lambda each: each.path)),
    )


def diff_packages(repository: Repository, old: str, new: str) -> list[PackageChange]:
    """Return the packages that differ between two images, by type and name.

    Raises: as `image_packages`.
    """
    return package_changes(*(image_packages(repository, each) for each in (old, new)))


def package_changes(old: ImagePackages, new: ImagePackages) -> list[PackageChange]:
    """Return the packages that differ between two lists, by type and name."""
    before, after = _versions(old), _versions(new)
    keys = sorted(before.keys() | after.keys())
    changes = (PackageChange(*key, before.get(key, ()), after.get(key, ())) for key in keys)
    return [change for change in changes if change.old != change.new]


def _versions(image: ImagePackages) -> Mapping[tuple[PackageType, str], tuple[str, ...]]:
    found: dict[tuple[PackageType, str], set[str]] = {}
    for each in image.packages:
        found.setdefault((each.type, each.package.name), set()).add(each.package.version)
    return {key: tuple(sorted(versions)) for key, versions in found.items()}


def visible_databases(
    repository: Repository, digests: Sequence[str], layers: Sequence[LayerPackages]
) -> list[tuple[str, Database]]:
    """Return the databases that are visible in the flat image, each with its path there.

    Args:
        repository: Opened for reading.
        digests: The layers of the image, from bottom to top.
        layers: The databases of each.
    """
    if not any(layer.databases for layer in layers):
        return []
    if len(layers) == 1:
        return [(database.path, database) for database in layers[0].databases]
    known = [{database.path: database for database in layer.databases} for layer in layers]
    visible = []
    indexes = [layer_index(repository, digest) for digest in digests]
    for item in merged_at(indexes, {path for layer in known for path in layer}):
        database = known[item.layer].get(item.source)
        # A hard link elsewhere to a database is not one.
        if database is not None and place_of(item.entry.path) is not None:
            visible.append((item.entry.path, database))
    return visible


def _distribution(visible: Iterable[tuple[str, Database]]) -> Package | None:
    """Return what os-release names; /etc/os-release takes precedence."""
    found = {path: each for path, each in visible if each.type == PackageType.OS and each.packages}
    return found[min(found)].packages[0] if found else None


def _installed(visible: Iterable[tuple[str, Database]]) -> Iterator[InstalledPackage]:
    for path, database in visible:
        kind = PackageType(database.type)
        if kind is not PackageType.OS:
            yield from (InstalledPackage(kind, package, path) for package in database.packages)
