"""Read all entries of the layer indexes: distinct contents, flat images, catalogs.

Each index is read once, and what it shows is kept in the user's cache.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from pathlib import Path

from publisher.browse.statistics.contents_cache import ContentsCache
from publisher.browse.statistics.counted_layers import CountedLayers
from publisher.browse.statistics.distinct import DistinctContents
from publisher.browse.statistics.holdings import Holder, Holdings, Unreadable
from publisher.browse.statistics.image_sizes import ImageSizes
from publisher.browse.statistics.totals import Sizes, by_size
from publisher.errors import PublisherError, explain
from publisher.layers.catalogs import DEFAULT_LIMIT
from publisher.layers.errors import NoTemporarySpace
from publisher.lazy import dataclass
from publisher.repository import Repository
from publisher.tree import layout

_LARGEST = 10


@dataclass(frozen=True, slots=True)
class Catalog:
    """A planned catalog of CVMFS: the directory in which it begins, and its entries."""

    path: str
    entries: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What only the entries of the indexes show. Sizes are in bytes.

    Attributes:
        files: The names of files in all layers.
        file_bytes: The sizes of the files of all layers, one for each hard-linked file.
        contents: The number of distinct contents of these files.
        content_bytes: The sizes of these, which a store of contents such as that of CVMFS keeps
            (before compression).
        flat_images: The published images whose flat form is counted.
        flat_entries: The paths in them.
        flat_bytes: The sizes of their files: what they would take if each were unpacked by itself.
        catalogs: The catalogs of CVMFS that are planned for layers and flat images, by size.
        largest: The largest of them.
        limit: The most entries that a catalog should have.
    """

    files: int
    file_bytes: int
    contents: int
    content_bytes: int
    flat_images: int
    flat_entries: int
    flat_bytes: int
    catalogs: tuple[Sizes, ...]
    largest: tuple[Catalog, ...]
    limit: int

    @property
    def over(self) -> int:
        """How many catalogs exceed the limit, since one directory has that many entries."""
        return self.catalogs[-1].trees

    @property
    def saved(self) -> int:
        """The bytes that a store of contents saves, compared with the layers."""
        return self.file_bytes - self.content_bytes


def read_contents(
    repository: Repository,
    holdings: Holdings,
    unreadable: Unreadable,
    progress: Callable[[int], None] = lambda entries: None,
    limit: int = DEFAULT_LIMIT,
    cache: Path | None = None,
) -> Contents:
    """Count the entries of each layer, and those of each published image.

    Args:
        repository: Opened for reading.
        holdings: Its manifests and layers.
        unreadable: Called with each layer and each image that is not counted.
        progress: Called with a number of entries that were counted: each layer is counted once, and
            once more for each image.
        limit: The largest number of entries of a catalog.
        cache: The file that keeps what was counted for later runs, or None.

    Raises:
        NoTemporarySpace: The list of contents cannot be stored.
    """
    catalogs = _Catalogs(limit)
    images = entries = size = 0
    with ContentsCache(cache) as known, DistinctContents() as distinct:
        layers = CountedLayers(repository, holdings, limit, known, distinct)
        image_sizes = ImageSizes(repository, layers, limit, known)
        # In this order, images that have layers in common follow each other.
        for holder in sorted(_distinct_images(holdings.holders), key=lambda each: each.layers):
            try:
                found = image_sizes.size(holder)
            except NoTemporarySpace:
                raise
            except (PublisherError, OSError) as error:
                unreadable(holder.name, explain(error))
            else:
                if holder.flat:
                    catalogs.add(layout.flat_image(holder.image_id), found.catalogs)
                images, entries, size = images + 1, entries + found.entries, size + found.size
            progress(sum(map(layers.count_entries, holder.layers)))
        for digest in holdings.layers:
            try:
                catalogs.add(layout.layer_tree(digest), layers.catalogs(digest))
            except NoTemporarySpace:
                raise
            except (PublisherError, OSError) as error:
                unreadable(digest, explain(error))
            progress(layers.count_entries(digest))
        known.keep_only(layers.keys(), image_sizes.keys)
        contents, content_bytes = distinct.count()
    return Contents(
        files=layers.files,
        file_bytes=layers.file_bytes,
        contents=contents,
        content_bytes=content_bytes,
        flat_images=images,
        flat_entries=entries,
        flat_bytes=size,
        catalogs=catalogs.by_size(),
        largest=catalogs.largest(),
        limit=limit,
    )


def _distinct_images(holders: Iterable[Holder]) -> Iterable[Holder]:
    """Return one published manifest of each image, one with a flat image if there is one."""
    found: dict[str, Holder] = {}
    for holder in holders:
        if holder.published and not (holder.image_id in found and found[holder.image_id].flat):
            found[holder.image_id] = holder
    return found.values()


@dataclass(slots=True)
class _Catalogs:
    """The sizes of all planned catalogs, and which are the largest."""

    limit: int
    _sizes: Counter[int] = field(default_factory=Counter)
    _largest: list[tuple[int, str]] = field(default_factory=list)

    def add(self, tree: str, sizes: Mapping[str, int]) -> None:
        self._sizes.update(sizes.values())
        found = [(size, f"{tree}/{path}" if path else tree) for path, size in sizes.items()]
        self._largest = heapq.nlargest(_LARGEST, [*self._largest, *found])

    def by_size(self) -> tuple[Sizes, ...]:
        return by_size(self._sizes, self.limit)

    def largest(self) -> tuple[Catalog, ...]:
        return tuple(Catalog(path, size) for size, path in self._largest)
