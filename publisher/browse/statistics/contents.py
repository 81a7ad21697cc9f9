"""Read all entries of the layer indexes: distinct contents, flat images, catalogs.

It takes seconds for each million entries. Memory does not grow with their number.
"""

from __future__ import annotations

import heapq
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field
from typing import BinaryIO

from publisher.browse.contents import layer_index, merged_layers
from publisher.browse.statistics.holdings import Holder, Holdings, Unreadable
from publisher.browse.statistics.totals import Sizes, by_size
from publisher.closing import Closing
from publisher.entry import Entry, EntryType, Generated, Merged
from publisher.errors import InvalidManifest, PublisherError, explain
from publisher.layers.catalogs import DEFAULT_LIMIT, catalog_sizes
from publisher.layers.errors import NoTemporarySpace
from publisher.layers.index import LayerIndex
from publisher.lazy import dataclass
from publisher.oci.config import ContainerConfig, parse_config
from publisher.repository import Repository
from publisher.runtimes.flat_files import insert, runtime_files
from publisher.tree import layout
from publisher.tree.record import InvalidRecord

_PARTS = 256
_DIGEST, _SIZE = 16, 8  # half of a SHA-256 digest distinguishes contents well enough
_RECORD = _DIGEST + _SIZE
_BUFFER = _RECORD * 1024
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
) -> Contents:
    """Read the index of each layer, and merge those of each published image.

    Args:
        repository: Opened for reading.
        holdings: Its manifests and layers.
        unreadable: Called with each layer that is counted as far as its index is readable, and with
            each image that is not counted.
        progress: Called with the number of entries that were read since the last call.
        limit: The largest number of entries of a catalog.

    Raises:
        NoTemporarySpace: The list of contents cannot be stored.
    """
    catalogs = _Catalogs(limit)
    files = file_bytes = 0
    with _Distinct() as distinct:
        for digest in holdings.layers:
            try:
                index = layer_index(repository, digest)
                for names, found in index.contents():
                    files += names
                    file_bytes += sum(size for size, _ in found)
                    distinct.add(found)
                    progress(names)
                catalogs.add_layer(digest, index)
            except NoTemporarySpace:
                raise
            except (PublisherError, OSError) as error:
                unreadable(digest, explain(error))
        contents, content_bytes = distinct.count()
    images = entries = size = 0
    for holder in _distinct_images(holdings.holders):
        try:
            tree = _Tree(_flat_image(repository, holder), progress)
            sizes = catalog_sizes(tree, limit)
        except (PublisherError, OSError) as error:
            unreadable(holder.name, explain(error))
            continue
        if holder.flat:
            catalogs.add(layout.flat_image(holder.image_id), sizes)
        images, entries, size = images + 1, entries + tree.entries, size + tree.size
    return Contents(
        files,
        file_bytes,
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


def _flat_image(repository: Repository, holder: Holder) -> Iterator[Merged | Generated]:
    """Return the entries of the image, with the files for runtimes if it has a flat form."""
    merged = merged_layers(repository, holder.layers)
    if not holder.flat:
        return iter(merged)
    return insert(merged, runtime_files(_container(repository, holder)))


def _container(repository: Repository, holder: Holder) -> ContainerConfig:
    try:
        data = repository.read(layout.config_file(holder.name))
        return parse_config(data or b"", holder.image_id).container
    except (InvalidManifest, InvalidRecord):
        return ContainerConfig()  # the number of files for runtimes is the same


class _Tree:
    """The entries of one tree, counted while they are iterated."""

    def __init__(
        self, entries: Iterator[Merged | Generated], progress: Callable[[int], None]
    ) -> None:
        self.entries = self.size = 0
        self._source = entries
        self._progress = progress

    def __iter__(self) -> Iterator[Entry]:
        for each in self._source:
            self.entries += 1
            if each.entry.type is EntryType.FILE:
                self.size += each.entry.size
            yield each.entry
        self._progress(self.entries)


@dataclass(slots=True)
class _Catalogs:
    """The sizes of all planned catalogs, and which are the largest."""

    limit: int
    _sizes: Counter[int] = field(default_factory=Counter)
    _largest: list[tuple[int, str]] = field(default_factory=list)

    def add_layer(self, digest: str, index: LayerIndex) -> None:
        """Plan the catalogs of a layer. A small one has one; its entries need not be read."""
        entries = index.header.entries
        sizes = catalog_sizes(index, self.limit) if entries > self.limit else {"": entries}
        self.add(layout.layer_tree(digest), sizes)

    def add(self, tree: str, sizes: dict[str, int]) -> None:
        self._sizes.update(sizes.values())
        found = [(size, f"{tree}/{path}" if path else tree) for path, size in sizes.items()]
        self._largest = heapq.nlargest(_LARGEST, [*self._largest, *found])

    def by_size(self) -> tuple[Sizes, ...]:
        return by_size(self._sizes, self.limit)

    def largest(self) -> tuple[Catalog, ...]:
        return tuple(Catalog(path, size) for size, path in self._largest)


class _Distinct(Closing):
    """Counts distinct contents, in a temporary file, as an external hash table.

    Contents are distributed to parts by the beginning of their digests. Each part is then counted
    by itself, so that memory has the contents of one part at a time.
    """

    def __init__(self) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  # until `close`
        self._buffers = [bytearray() for _ in range(_PARTS)]
        self._extents: list[list[tuple[int, int]]] = [[] for _ in range(_PARTS)]
        self._end = 0

    def close(self) -> None:
        """Delete the temporary file."""
        self._file.close()

    def add(self, contents: Iterable[tuple[int, str]]) -> None:
        """Add the sizes and digests of files."""
        buffers = self._buffers
        for size, sha256 in contents:
            digest = bytes.fromhex(sha256[: 2 * _DIGEST])
            buffer = buffers[digest[0]]
            buffer += digest
            buffer += size.to_bytes(_SIZE)
            if len(buffer) >= _BUFFER:
                self._write(digest[0])

    def count(self) -> tuple[int, int]:
        """Return the number of distinct contents, and the sum of their sizes."""
        count = total = 0
        for part, buffer in enumerate(self._buffers):
            found = _records(buffer)
            for offset, length in self._extents[part]:
                self._file.seek(offset)
                found |= _records(self._file.read(length))
            count += len(found)
            total += sum(int.from_bytes(record[_DIGEST:]) for record in found)
        return count, total

    def _write(self, part: int) -> None:
        buffer = self._buffers[part]
        try:
            self._file.write(buffer)
        except OSError as error:
            raise NoTemporarySpace(
                "cannot count the contents of files",
                why=f"the list of their digests cannot be stored: {error.strerror}",
                hint="free space for temporary files, or set TMPDIR to a directory with more",
            ) from error
        self._extents[part].append((self._end, len(buffer)))
        self._end += len(buffer)
        buffer.clear()


def _records(data: bytes | bytearray) -> set[bytes]:
    return {bytes(data[at : at + _RECORD]) for at in range(0, len(data), _RECORD)}
