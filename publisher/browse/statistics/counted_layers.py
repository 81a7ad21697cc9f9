"""What the entries of layers show, counted when a layer is first needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from itertools import islice

from publisher.browse.contents import layer_index
from publisher.browse.statistics.contents_cache import ContentsCache, LayerContents
from publisher.browse.statistics.distinct import Digests, DistinctContents, digest_key
from publisher.browse.statistics.holdings import Holdings
from publisher.browse.statistics.layer_tree import LayerTree, layer_tree
from publisher.layers.catalogs import catalog_sizes
from publisher.layers.index import LayerIndex
from publisher.layers.index_lines import Row
from publisher.lazy import dataclass
from publisher.repository import Repository

_LARGEST_LAYER = 500_000
"""The most entries of a layer that is kept in memory, or in the cache."""

_IN_MEMORY = 600_000
"""How many entries the layers in memory have together."""

_AT_ONCE = 100_000


class CountedLayers:
    """The layers of a repository.

    Args:
        repository: Opened for reading.
        holdings: Its layers.
        limit: The largest number of entries of a catalog of CVMFS.
        known: What was counted by earlier runs.
        distinct: Receives the contents of each layer that is counted.

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
