"""The sizes of merged images, from their layers.

They are computed from the layers in memory, which is bounded: images with a layer that is too large
for that are merged as a stream instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from publisher.browse.contents import merged_layers
from publisher.browse.statistics.contents_cache import ContentsCache
from publisher.browse.statistics.counted_layers import CountedLayers
from publisher.browse.statistics.flat_size import FlatSize, flat_size
from publisher.browse.statistics.holdings import Holder
from publisher.browse.statistics.layer_tree import LayerTree
from publisher.entry import Entry, EntryType, Generated, Merged
from publisher.errors import InvalidManifest
from publisher.layers.catalogs import catalog_sizes
from publisher.oci.config import ContainerConfig, parse_config
from publisher.repository import Repository
from publisher.runtimes import flat_files
from publisher.tree import layout
from publisher.tree.record import InvalidRecord


class ImageSizes:
    """The sizes of the images of a repository.

    Args:
        repository: Opened for reading.
        layers: Its layers.
        limit: The largest number of entries of a catalog of CVMFS.
        known: What was counted by earlier runs.

    Attributes:
        keys: What identifies the images in the cache whose sizes were asked for.
    """

    def __init__(
        self, repository: Repository, layers: CountedLayers, limit: int, known: ContentsCache
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
