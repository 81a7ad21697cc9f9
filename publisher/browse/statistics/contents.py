"""Read all entries of the layer indexes: distinct contents, flat images, catalogs.

Each index is read once, and what it shows is kept in the user's cache. The sizes of flat images are
computed from the layers in memory, which is bounded: images with a layer that is too large for that
are merged as a stream instead.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from itertools import islice
from pathlib import Path

from publisher.browse.contents import layer_index, merged_layers
from publisher.browse.statistics.contents_cache import ContentsCache, LayerContents
from publisher.browse.statistics.distinct import Digests, DistinctContents, digest_key
from publisher.browse.statistics.flat_size import FlatSize, flat_size
from publisher.browse.statistics.holdings import Holder, Holdings, Unreadable
from publisher.browse.statistics.layer_tree import LayerTree, layer_tree
from publisher.browse.statistics.totals import Sizes, by_size
from publisher.entry import Entry, EntryType, Generated, Merged
from publisher.errors import InvalidManifest, PublisherError, explain
from publisher.layers.catalogs import DEFAULT_LIMIT, catalog_sizes
from publisher.layers.errors import NoTemporarySpace
from publisher.layers.index import LayerIndex
from publisher.layers.index_lines import Row
from publisher.lazy import dataclass
from publisher.oci.config import ContainerConfig, parse_config
from publisher.repository import Repository
from publisher.runtimes import flat_files
from publisher.tree import layout
from publisher.tree.record import InvalidRecord

_LARGEST_LAYER = 500_000
"""The most entries of a layer that is kept in memory, or in the cache."""

_IN_MEMORY = 600_000
"""How many entries the layers in memory have together."""

_AT_ONCE = 100_000
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
        layers = _Layers(repository, holdings, limit, known, distinct)
        flat_images = _FlatImages(repository, layers, limit, known)
        # In this order, images that have layers in common follow each other.
        for holder in sorted(_distinct_images(holdings.holders), key=lambda each: each.layers):
            try:
                found = flat_images.size(holder)
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
        known.keep_only(layers.keys(), flat_images.keys)
        contents, content_bytes = distinct.count()
    return Contents(
        layers.files,
        layers.file_bytes,
        contents,
        content_bytes,
        images,
        entries,
        size,
        catalogs.by_size(),
        catalogs.largest(),
        limit,
    )


def _distinct_images(holders: Iterable[Holder]) -> Iterable[Holder]:
    """Return one published manifest of each image, one with a flat image if there is one."""
    found: dict[str, Holder] = {}
    for holder in holders:
        if holder.published and not (holder.image_id in found and found[holder.image_id].flat):
            found[holder.image_id] = holder
    return found.values()


class _Layers:
    """The layers of the repository, each counted when it is first needed.

    Attributes:
        files: The number of names of files in the layers that were counted.
        file_bytes: The bytes of these files.
    """

    def __init__(
        self,
        repository: Repository,
        holdings: Holdings,
        limit: int,
        known: ContentsCache,
        distinct: DistinctContents,
    ) -> None:
        self.files = self.file_bytes = 0
        self._repository = repository
        self._sizes = holdings.layers
        self._limit = limit
        self._known = known
        self._distinct = distinct
        self._catalogs: dict[str, Mapping[str, int]] = {}
        self._trees: OrderedDict[str, LayerTree] = OrderedDict()

    def count_entries(self, digest: str) -> int:
        """Return the number of entries of a layer, according to its header."""
        size = self._sizes.get(digest)
        return 0 if size is None else size.entries

    def key(self, digest: str) -> str:
        """Return what identifies the layer in the cache: its digest, and its form in the tree."""
        size = self._sizes.get(digest)
        return f"{digest} {size.entries} {size.stored} {self._limit}" if size else digest

    def keys(self) -> set[str]:
        """Return the keys of all layers."""
        return set(map(self.key, self._sizes))

    def catalogs(self, digest: str) -> Mapping[str, int]:
        """Return the entries of each catalog of a layer, whose contents are counted.

        Raises:
            NoContents: The layer or its index is missing.
            LayerError: The index is damaged.
        """
        if digest not in self._catalogs:
            known = self._known.layer(self.key(digest))
            if known is not None:
                self._add(digest, known)
            elif self.count_entries(digest) > _LARGEST_LAYER:
                self._stream(digest)
            else:
                self._read(digest)
        return self._catalogs[digest]

    def tree(self, digest: str) -> LayerTree | None:
        """Return a layer; None if it is too large for the memory, or its links lead out of it.

        Raises:
            NoContents: The layer or its index is missing.
            LayerError: The index is damaged.
        """
        if self.count_entries(digest) > _LARGEST_LAYER:
            return None
        tree = self._trees.get(digest) or self._read(digest)
        self._trees.move_to_end(digest)
        return tree if tree.is_complete else None

    def _read(self, digest: str) -> LayerTree:
        index = layer_index(self._repository, digest)
        tally = _Tally()
        tree = layer_tree(tally.noting(index.rows()))
        if digest not in self._catalogs:
            contents = Digests.of(tally.sizes)
            catalogs = self._plan(index, tree.entries)
            found = LayerContents(tally.files, tally.file_bytes, contents, catalogs)
            self._add(digest, found)
            self._known.add_layer(self.key(digest), found)
        self._trees[digest] = tree
        held = sum(each.entries for each in self._trees.values())
        while held > _IN_MEMORY and len(self._trees) > 1:
            held -= self._trees.popitem(last=False)[1].entries
        return tree

    def _stream(self, digest: str) -> None:
        """Count the contents of a large layer in parts, which the cache does not keep."""
        index = layer_index(self._repository, digest)
        tally = _Tally()
        rows = tally.noting(index.rows())
        while any(True for _ in islice(rows, _AT_ONCE)):
            self._distinct.add(Digests.of(tally.sizes))
            tally.sizes.clear()
        catalogs = self._plan(index, index.header.entries)
        empty = Digests.of({})
        self._add(digest, LayerContents(tally.files, tally.file_bytes, empty, catalogs))

    def _plan(self, index: LayerIndex, entries: int) -> Mapping[str, int]:
        return catalog_sizes(index, self._limit) if entries > self._limit else {"": entries}

    def _add(self, digest: str, found: LayerContents) -> None:
        self._distinct.add(found.digests)
        self._catalogs[digest] = found.catalogs
        self.files += found.files
        self.file_bytes += found.size


@dataclass(slots=True)
class _Tally:
    """What is counted of a layer while its index is read.

    Attributes:
        files: The number of names of files.
        file_bytes: The bytes of these files, one for each hard-linked file.
        sizes: The sizes of the contents, by the beginning of their digests.
    """

    files: int = 0
    file_bytes: int = 0
    sizes: dict[int, int] = field(default_factory=dict)

    def noting(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Return the rows, which are counted while they are iterated."""
        sizes = self.sizes
        for row in rows:
            kind = row[1]
            if kind == "f":
                self.files += 1
                self.file_bytes += row[2]
                sizes[digest_key(row[3])] = row[2]
            elif kind == "h":
                self.files += 1
            yield row


class _FlatImages:
    """The sizes of merged images.

    Attributes:
        keys: What identifies the images in the cache whose sizes were asked for.
    """

    def __init__(
        self, repository: Repository, layers: _Layers, limit: int, known: ContentsCache
    ) -> None:
        self.keys: set[str] = set()
        self._repository = repository
        self._layers = layers
        self._limit = limit
        self._known = known

    def size(self, holder: Holder) -> FlatSize:
        """Return the size of an image, with the files for runtimes if it has a flat form.

        Raises:
            NoContents: A layer or its index is missing.
            LayerError: An index is damaged.
        """
        key = self._key(holder)
        self.keys.add(key)
        found = self._known.image(key)
        if found is None:
            found = self._count(holder)
            self._known.add_image(key, found)
        return found

    def _key(self, holder: Holder) -> str:
        """Return a digest of everything that the size depends on."""
        form = f"{holder.image_id} {flat_files.VERSION if holder.flat else 0}"
        text = "\n".join((form, *map(self._layers.key, holder.layers)))
        return hashlib.sha256(text.encode()).hexdigest()

    def _count(self, holder: Holder) -> FlatSize:
        generated = self._generated(holder)
        trees: list[LayerTree] = []
        for digest in holder.layers:
            tree = self._layers.tree(digest)
            if tree is None:
                return self._merge(holder, generated)
            trees.append(tree)
        return flat_size(trees, generated, self._limit)

    def _merge(self, holder: Holder, generated: Sequence[Generated]) -> FlatSize:
        merged = merged_layers(self._repository, holder.layers)
        tree = _Tree(flat_files.insert(merged, generated))
        catalogs = catalog_sizes(tree, self._limit)
        return FlatSize(tree.entries, tree.size, catalogs)

    def _generated(self, holder: Holder) -> Sequence[Generated]:
        if not holder.flat:
            return ()
        try:
            data = self._repository.read(layout.config_file(holder.name))
            config = parse_config(data or b"", holder.image_id).container
        except (InvalidManifest, InvalidRecord):
            config = ContainerConfig()  # the number of files for runtimes is the same
        return flat_files.runtime_files(config)


class _Tree:
    """The entries of a merged image, counted while they are iterated."""

    def __init__(self, entries: Iterable[Merged | Generated]) -> None:
        self.entries = self.size = 0
        self._source = entries

    def __iter__(self) -> Iterator[Entry]:
        for each in self._source:
            self.entries += 1
            if each.entry.type is EntryType.FILE:
                self.size += each.entry.size
            yield each.entry


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
