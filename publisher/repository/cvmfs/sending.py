"""What one `cvmfs_server ingest` adds, written as its stream: layers, trees, records, links."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from publisher.entry import Entry, EntryType, Fixup
from publisher.errors import PublisherError
from publisher.repository import RepositoryChanged
from publisher.repository.cvmfs.changes import Ingest, NewLayer, NewTree
from publisher.repository.cvmfs.planned import read_plan
from publisher.repository.cvmfs.stream import TarStream, UnfitForStream, Write, renamed
from publisher.tree import layout

if TYPE_CHECKING:
    from publisher.repository.cvmfs.repository import CvmfsRepository

_PIECE = 1 << 20


def send(repository: CvmfsRepository, call: Ingest, write: Write) -> None:
    """Write everything that `call` adds to `repository`, content before what leads to it."""
    owner = repository.configuration.owner_ids()
    added = call.additions
    with TarStream(write, repository.published_kind, owner, call.base) as stream:
        for path in added.directories:
            stream.make_parents(f"{path}/.")
        for layer in added.layers:
            _send_layer(repository, stream, layer)
        for tree in added.trees:
            _send_tree(stream, tree)
        for path, content in sorted(added.files.items()):
            entry = Entry(path, EntryType.FILE, 0o644, owner.uid, owner.gid, len(content))
            stream.add(entry, [content])
        for path, text in sorted(added.links.items()):
            entry = Entry(path, EntryType.SYMLINK, 0o777, owner.uid, owner.gid, target=text)
            stream.add(entry)
        stream.end()


def _send_layer(repository: CvmfsRepository, stream: TarStream, layer: NewLayer) -> None:
    engine = repository.engine
    staged = repository.staged(layer.digest)
    tree = layout.layer_tree(layer.digest)
    index_path = layout.layer_index(layer.digest)
    below = [layout.layer_tree(digest) for digest in layer.below]

    def add(entry: Entry, content: Iterable[bytes | memoryview]) -> None:
        path = f"{tree}/{entry.path}" if entry.path else tree
        target = entry.target
        if entry.type is EntryType.HARDLINK:
            target = f"{tree}/{target}"
        stream.add(renamed(entry, path, target), content)

    def borrow(fixup: Fixup) -> None:
        assert fixup.layer is not None
        target = f"{below[fixup.layer]}/{fixup.source}"
        stream.add(
            Entry(f"{tree}/{fixup.entry.path}", EntryType.HARDLINK, target=target)
            if fixup.entry.type is EntryType.FILE
            else renamed(fixup.entry, f"{tree}/{fixup.entry.path}", fixup.entry.target)
        )

    with staged.index.open("rb") as index:
        try:
            engine.replay(staged.chunks(), index, staged.order, layer.fixups, add, borrow)
        except UnfitForStream:
            raise
        except PublisherError as error:
            # It was verified when it came: the disk has lost some of it, and it has to come again.
            repository.give_up(layer.digest)
            raise RepositoryChanged(
                f"cannot use layer {layer.digest}", why=f"what was kept of it is damaged: {error}"
            ) from error
        for directory in sorted(engine.catalogs(engine.entries(index))):
            stream.start_catalog(f"{tree}/{directory}")
        size = os.fstat(index.fileno()).st_size
        index.seek(0)
        owner = repository.configuration.owner_ids()
        entry = Entry(index_path, EntryType.FILE, 0o644, owner.uid, owner.gid, size)
        stream.add(entry, iter(lambda: index.read(_PIECE), b""))


def _send_tree(stream: TarStream, tree: NewTree) -> None:
    for item in read_plan(tree.planned):
        if isinstance(item, str):
            stream.start_catalog(f"{tree.path}/{item}")
        else:
            entry, content = item
            path = f"{tree.path}/{entry.path}" if entry.path else tree.path
            stream.add(renamed(entry, path, entry.target), [content] if content else [])
