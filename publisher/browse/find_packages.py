"""Find packages in all published images: the use case behind `publisher find --package`."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from publisher.browse.contents import NoContents
from publisher.browse.package_cache import PackageCache
from publisher.browse.packages import packages_of_layers
from publisher.errors import InvalidManifest, PublisherError, explain
from publisher.layers.errors import LayerError
from publisher.lazy import dataclass
from publisher.oci.digest import digest_of
from publisher.oci.manifest import parse_published_manifest
from publisher.packages.model import InstalledPackage
from publisher.packages.query import PackageQuery
from publisher.repository import Repository, RepositoryChanged, RepositoryError
from publisher.repository.damaged import read_damaged
from publisher.repository.image_packages import ImageLayers
from publisher.tree import layout
from publisher.tree.record import InvalidRecord

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class FoundPackage:
    """A package that matches, in the image published as `image`."""

    image: str
    installed: InstalledPackage


class PackagesSkipped(PublisherError):
    """Some of the package databases of the image `name` were skipped: `count` of them."""

    def __init__(self, name: str, count: int) -> None:
        super().__init__(
            f"cannot read all packages of {name}",
            why=f"{count} of its package databases, or parts of them, are skipped",
            hint=f"publisher packages {name}",
        )
        self.name = name
        self.count = count


def find_packages(
    repository: Repository,
    query: PackageQuery,
    cache: Path | None,
    unknown: Callable[[str, PublisherError], None],
    progress: Progress = lambda done, images: None,
) -> Iterator[FoundPackage]:
    """Yield the packages that match `query`, by the name of the image.

    Args:
        repository: Opened for reading.
        query: What is searched for.
        cache: The file that keeps the packages of images for later searches, or None.
        unknown: Called with the name of each image whose packages are not, or not all, known, and
            the reason.
        progress: Called with how many of the images that the cache does not have were read, and
            with their number.
    """
    problems: list[tuple[str, PublisherError]] = []
    try:
        found = _search(repository, query, cache, problems, progress)
    except (sqlite3.Error, ValueError) as error:  # also a value that is never stored
        _log.debug("the cache of packages %s is not used: %s", cache, error)
        problems.clear()
        if cache is not None:
            with suppress(OSError):
                cache.unlink()  # a later search makes it anew
        found = _search(repository, query, None, problems, progress)
    for name, problem in problems:
        unknown(name, problem)
    yield from found


def _search(
    repository: Repository,
    query: PackageQuery,
    cache: Path | None,
    problems: list[tuple[str, PublisherError]],
    progress: Progress,
) -> list[FoundPackage]:
    with PackageCache(cache) as known:
        names = _update(repository, known, problems, progress)
        found: dict[int, list[InstalledPackage]] = {}
        for number, kind, package in known.packages():
            if query.matches(kind, package):
                for image, path in known.installed(number):
                    found.setdefault(image, []).append(InstalledPackage(kind, package, path))
    return [
        FoundPackage(name, each)
        for name, image in names
        for each in sorted(found.get(image, ()), key=InstalledPackage.order)
    ]


@dataclass(frozen=True, slots=True)
class _New:
    """An image that the cache does not have: its layers, from bottom to top, and a name of it."""

    layers: tuple[str, ...]
    name: str


def _update(
    repository: Repository,
    known: PackageCache,
    problems: list[tuple[str, PublisherError]],
    progress: Progress,
) -> list[tuple[str, int]]:
    """Add new images to the cache, and delete others; return the names with their images' numbers.

    An image whose databases cannot be read at the moment is not added.
    """
    images = known.images()
    names: list[tuple[str, str]] = []
    new: dict[str, _New] = {}
    digests: dict[str, str] = {}  # images have equal ones
    for name in repository.names():
        try:
            data = read_damaged(repository, layout.manifest_file(name))
            if data is None:
                continue  # removed in the meantime
            digest = digest_of(data)
            if digest not in images and digest not in new:
                layers = [layer.digest for layer in parse_published_manifest(data).layers]
                new[digest] = _New(tuple(digests.setdefault(each, each) for each in layers), name)
        except (InvalidManifest, InvalidRecord) as error:
            problems.append((name, error))
            continue
        names.append((name, digest))
    failed = _add(repository, known, images, new, progress)
    found: list[tuple[str, int]] = []
    for name, digest in names:
        if digest in failed:
            problems.append((name, failed[digest]))
            continue
        number, skipped = images[digest]
        if skipped:
            problems.append((name, PackagesSkipped(name, skipped)))
        found.append((name, number))
    known.keep_only({digest for _, digest in names})
    return found


def _add(
    repository: Repository,
    known: PackageCache,
    images: dict[str, tuple[int, int]],
    new: Mapping[str, _New],
    progress: Progress,
) -> dict[str, PublisherError]:
    """Add new images to the cache and to `images`; return why others cannot be added.

    All are by the digest of the manifest.
    """
    failed: dict[str, PublisherError] = {}
    reader = ImageLayers(repository)
    # In this order, images that have layers in common follow each other.
    for done, (digest, image) in enumerate(sorted(new.items(), key=lambda item: item[1].layers)):
        progress(done, len(new))
        try:
            found = packages_of_layers(repository, image.name, image.layers, reader)
        except (
            *(NoContents, LayerError, InvalidRecord),
            *(RepositoryChanged, RepositoryError, OSError),
        ) as error:
            failed[digest] = explain(error)
            continue
        skipped = len(found.skipped)
        if found.unreadable:
            failed[digest] = PackagesSkipped(image.name, skipped)
        else:
            images[digest] = known.add(digest, found.packages, skipped), skipped
    progress(len(new), len(new))
    return failed
