"""Find packages in all published images: the use case behind `publisher find --package`."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from publisher.browse.contents import NoContents
from publisher.browse.package_cache import PackageCache
from publisher.browse.packages import RememberedLayers, packages_of
from publisher.errors import PublisherError, explain
from publisher.layers.errors import LayerError
from publisher.lazy import dataclass
from publisher.oci.digest import digest_of
from publisher.packages.model import InstalledPackage
from publisher.packages.query import PackageQuery
from publisher.repository import Repository, RepositoryChanged, RepositoryError
from publisher.repository.damaged import read_damaged
from publisher.repository.published import NotPublished, load_image
from publisher.tree import layout
from publisher.tree.record import InvalidRecord

_log = logging.getLogger(__name__)


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
) -> Iterator[FoundPackage]:
    """Yield the packages that match `query`, by the name of the image.

    Args:
        repository: Opened for reading.
        query: What is searched for.
        cache: The file that keeps the packages of images for later searches, or None.
        unknown: Called with the name of each image whose packages are not, or not all, known, and
            the reason.
    """
    problems: list[tuple[str, PublisherError]] = []
    try:
        found = _search(repository, query, cache, problems)
    except (sqlite3.Error, ValueError) as error:  # also a value that is never stored
        _log.debug("the cache of packages %s is not used: %s", cache, error)
        problems.clear()
        found = _search(repository, query, None, problems)
    for name, problem in problems:
        unknown(name, problem)
    yield from found


def _search(
    repository: Repository,
    query: PackageQuery,
    cache: Path | None,
    problems: list[tuple[str, PublisherError]],
) -> list[FoundPackage]:
    with PackageCache(cache) as known:
        names = _update(repository, known, problems)
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


def _update(
    repository: Repository, known: PackageCache, problems: list[tuple[str, PublisherError]]
) -> list[tuple[str, int]]:
    """Add new images to the cache, and delete others; return the names with their images' numbers.

    An image whose databases cannot be read at the moment is not added.
    """
    images = known.images()
    names: list[tuple[str, int]] = []
    published: set[str] = set()
    layers = RememberedLayers(repository)
    for name in repository.names():
        try:
            data = read_damaged(repository, layout.manifest_file(name))
        except InvalidRecord as error:
            problems.append((name, error))
            continue
        if data is None:
            continue  # removed in the meantime
        manifest = digest_of(data)
        published.add(manifest)
        if manifest not in images:
            try:
                found = packages_of(repository, load_image(repository, name), layers.read)
            except NotPublished:
                continue
            except (
                *(NoContents, LayerError, InvalidRecord),
                *(RepositoryChanged, RepositoryError, OSError),
            ) as error:
                problems.append((name, explain(error)))
                continue
            skipped = len(found.skipped)
            if found.unreadable:
                problems.append((name, PackagesSkipped(name, skipped)))
                continue
            images[manifest] = known.add(manifest, found.packages, skipped), skipped
        number, skipped = images[manifest]
        if skipped:
            problems.append((name, PackagesSkipped(name, skipped)))
        names.append((name, number))
    known.keep_only(published)
    return names
