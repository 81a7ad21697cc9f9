"""The packages of a published layer: from its record, or from the databases in its tree."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

from publisher.entry import Entry, EntryType
from publisher.layers.index import LayerIndex
from publisher.layers.index_lines import decode_entry, encoded_path
from publisher.packages.model import Database, LayerPackages
from publisher.packages.places import Place, is_likely, place_of
from publisher.packages.reading import combine, not_a_file, read_database
from publisher.repository.descriptors import Directories
from publisher.repository.errors import RepositoryError
from publisher.repository.protocol import Repository
from publisher.tree import layout
from publisher.tree.layer_packages import PackageRecord
from publisher.tree.record import InvalidRecord


def layer_packages(repository: Repository, digest: str) -> LayerPackages:
    """Return the packages of a published or staged layer.

    They are in the layer's record; without one, or with a damaged one, its tree is read.

    Raises:
        LayerError: The layer's index is damaged.
        RepositoryChanged: The layer is not published any more.
        RepositoryError: The tree has to be read, and the repository is not mounted.
    """
    data = repository.layer_packages(digest)
    if data is not None:
        with suppress(InvalidRecord):  # `verify` reports it
            return PackageRecord.parse(data, digest).packages
    return read_layer_packages(repository, digest)


def read_layer_packages(repository: Repository, digest: str) -> LayerPackages:
    """Return the packages that the databases in a layer's tree list; see `layer_packages`.

    The index names the databases. No symbolic link is followed on the way to them.
    """
    entries = list(_database_entries(LayerIndex(partial(repository.open_index, digest), digest)))
    if not entries:
        return LayerPackages()
    if repository.local_root is None:
        raise RepositoryError(
            f"cannot read the packages of layer {digest}",
            why="the repository is not mounted on this machine",
            hint="mount it, or use the command where it is mounted",
        )
    with Directories(repository.local_root / layout.layer_tree(digest)) as tree:
        unreadable: set[str] = set()
        packages = combine(_databases(tree, entries, unreadable.add))
        return replace(packages, unreadable=frozenset(unreadable))


def _databases(
    tree: Directories, entries: Iterable[tuple[Entry, Place]], unreadable: Callable[[str], None]
) -> Iterator[Database]:
    for entry, place in entries:
        try:
            database = _read(tree, entry, place)
        except OSError as error:
            unreadable(entry.path)
            database = Database(entry.path, place.type, (), f"it cannot be read: {error.strerror}")
        if database is not None:
            yield database


def _database_entries(index: LayerIndex) -> Iterator[tuple[Entry, Place]]:
    for line in index.lines():
        if is_likely(encoded_path(line)):
            entry = decode_entry(line)
            place = place_of(entry.path)
            if place is not None and entry.type is not EntryType.WHITEOUT:
                yield entry, place


def _read(tree: Directories, entry: Entry, place: Place) -> Database | None:
    if entry.is_unresolved:
        # Its content is that of a file of a lower layer, whose database has the packages.
        return Database(entry.path, place.type)
    if entry.type not in (EntryType.FILE, EntryType.HARDLINK):
        return not_a_file(entry.path, place, entry.type)
    with tree.open_file(entry.path) as file:
        content = io.BytesIO(file.read(place.limit)) if place.head else file
        return read_database(entry.path, place, entry.size, content)
