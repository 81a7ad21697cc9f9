"""A repository in memory, for tests of the code above repositories, without a disk."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from publisher.entry import Content, Entry, EntryType, Fixup, Generated, Merged, sort_key
from publisher.layers.content import filled
from publisher.repository import LayerChanged, PathTaken
from publisher.times import format_time
from publisher.tree import layout
from publisher.tree.history import Change, Record
from publisher.tree.layout import RepositoryURL
from publisher.tree.record import InvalidRecord


@dataclass(frozen=True, slots=True)
class Node:
    """One entry of the tree; hard links to one file have the same `identity`."""

    entry: Entry
    content: bytes = b""
    identity: object = field(default_factory=object)

    def sha256(self) -> str:
        """The SHA-256 digest of a file's content, in hex without a prefix."""
        return hashlib.sha256(self.content).hexdigest()


Tree = dict[str, Node]
"""The entries of a tree by their paths; "" is its root."""


class MemoryRepository:
    """A `publisher.repository.Repository` that ends with the process. Safe between threads.

    A commit replaces the mapping `nodes`, and never changes an existing one.
    """

    keeps_xattrs = True
    local_root = None

    def __init__(self, name: str = "memory") -> None:
        self.url = RepositoryURL("memory", name)
        self.nodes: Tree = {"": Node(Entry("", EntryType.DIRECTORY, 0o755))}
        self.finished: dict[str, tuple[Tree, bytes, bytes, bytes]] = {}
        self.records: list[Record] = []
        self.writing = threading.Lock()

    def read(self, path: str) -> bytes | None:
        """Return a small file's bytes; None if it is missing."""
        node = self.nodes.get(path)
        if node is None or node.entry.type is EntryType.SYMLINK:
            return None
        if node.entry.type is EntryType.FILE:
            return node.content
        found = str(node.entry.type)
        raise InvalidRecord(path, why=f"it is {found}, not a file", found=found)

    def content(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file."""
        if path not in self.nodes:
            raise FileNotFoundError(path)
        yield self.nodes[path].content

    def link_text(self, path: str) -> str | None:
        """Return a symlink's text; None if it is missing."""
        node = self.nodes.get(path)
        is_link = node is not None and node.entry.type is EntryType.SYMLINK
        return node.entry.target if node is not None and is_link else None

    def exists(self, path: str) -> bool:
        """Whether `path` exists; symlinks are not followed."""
        return path in self.nodes

    def kind(self, path: str) -> EntryType | None:
        """Return the type of the entry at `path`, a symlink not followed; None if it is missing."""
        node = self.nodes.get(path)
        return node.entry.type if node is not None else None

    def identity(self, path: str) -> object | None:
        """Equal for two hard links to one file."""
        node = self.nodes.get(path)
        return node.identity if node is not None else None

    def children(self, path: str) -> list[str]:
        """The names in the directory `path`, sorted; empty if there is no such directory."""
        start = f"{path}/" if path else ""
        below = (other[len(start) :] for other in self.nodes if other.startswith(start))
        return sorted(name for name in below if name and "/" not in name)

    def names(self) -> Iterator[str]:
        """The names of all published images, sorted."""
        start, end = f"{layout.METADATA}/", f"/{layout.MANIFEST_FILE}"
        found = (
            path[len(start) : -len(end)]
            for path in self.nodes
            if path.startswith(start) and path.endswith(end)
        )
        hidden = (layout.RETIRED.removeprefix(start), layout.IMAGES.removeprefix(start))
        yield from sorted(name for name in found if not name.startswith(hidden))

    def walk(self, path: str) -> Iterator[Node]:
        """All entries of the tree at `path`, its root first (as ""), in the order of an index."""
        if self.kind(path) is not EntryType.DIRECTORY:
            raise NotADirectoryError(f"{path} is not a directory")
        tree = _cut_out(self.nodes, path)
        for below in sorted(tree, key=sort_key):
            node = tree[below]
            # A tree does not record which entries are implicit, or what policy removed.
            seen = replace(node.entry, path=below, implicit=False, dropped=())
            yield replace(node, entry=seen)

    def unfinished(self) -> bool:
        """Return no transaction: a commit here is one step."""
        return False

    def history(self, damaged: Callable[[str], None] | None = None) -> Iterator[Record]:
        """Yield the records of transactions, the latest first."""
        yield from reversed(self.records)

    def free_space(self) -> int | None:
        """Not known."""
        return None

    def reserve_space(
        self, layers: Mapping[str, int], keep_waiting: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """None: memory has no limit."""
        return nullcontext()

    def discard_staged(self, keep: Collection[str]) -> int:
        """Delete the staged layers that are not in `keep`; return how many."""
        before = len(self.finished)
        self.finished = {digest: found for digest, found in self.finished.items() if digest in keep}
        return before - len(self.finished)

    def has_layer(self, digest: str) -> bool:
        """Whether the layer is published, or staged."""
        return layout.layer_index(digest) in self.nodes or digest in self.finished

    def open_index(self, digest: str) -> BinaryIO:
        """Open the index of a published or staged layer; LayerChanged if it is neither."""
        published = self.nodes.get(layout.layer_index(digest))
        if published is not None:
            return io.BytesIO(published.content)
        if digest in self.finished:
            return io.BytesIO(self.finished[digest][1])
        raise _gone(digest)

    def has_tar_split(self, digest: str) -> bool:
        """Return whether a published or staged layer has tar-split data."""
        is_staged = digest in self.finished and bool(self.finished[digest][2])
        return is_staged or layout.layer_tar_split(digest) in self.nodes

    def layer_packages(self, digest: str) -> bytes | None:
        """Return the record of a published or staged layer's packages; None without one."""
        if digest in self.finished and self.finished[digest][3]:
            return self.finished[digest][3]
        return self.read(layout.layer_packages(digest))

    @contextmanager
    def stage_layer(self, digest: str) -> Iterator[MemoryLayerStage]:
        """Begin to unpack a layer, which is discarded unless `finish` is called."""
        yield MemoryLayerStage(lambda *parts: self._finish(digest, *parts))

    @contextmanager
    def transaction(self, purpose: str) -> Iterator[MemoryTransaction]:
        """Begin a change."""
        yield MemoryTransaction(self, purpose)

    def close(self) -> None:
        """Do nothing."""

    def layer_tree(self, digest: str) -> Tree:
        """The tree of a published or staged layer; LayerChanged if it is neither."""
        if layout.layer_index(digest) in self.nodes:
            return _cut_out(self.nodes, layout.layer_tree(digest))
        if digest in self.finished:
            return self.finished[digest][0]
        raise _gone(digest)

    def _finish(
        self, digest: str, tree: Tree, index: bytes, tar_split: bytes, packages: bytes
    ) -> None:
        self.finished.setdefault(digest, (tree, index, tar_split, packages))


class MemoryLayerStage:
    """A layer while it is unpacked, and its own files."""

    place = None
    refused: Mapping[str, int] = {}

    def __init__(self, keep: Callable[[Tree, bytes, bytes, bytes], None]) -> None:
        self._keep = keep
        self.tree = MemoryTree()
        self.sink = self.tree
        self.index: BinaryIO = io.BytesIO()
        self.tar_split = io.BytesIO()
        self.packages = b""
        self.kept = None

    def memory(self, blob_size: int) -> AbstractContextManager[None]:
        """Provide none: the tree is in memory."""
        return nullcontext()

    def add_packages(self, record: bytes) -> None:
        """Keep the record of the layer's packages."""
        self.packages = record

    def open_files(self) -> AbstractContextManager[MemoryLayerStage]:
        """Return itself."""
        return nullcontext(self)

    def open_tar_split(self) -> BinaryIO:
        """Return a new file for the layer's tar-split data."""
        return self.tar_split

    def open_index(self) -> BinaryIO:
        """Return the index."""
        assert isinstance(self.index, io.BytesIO)
        return io.BytesIO(self.index.getvalue())

    def keep(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """Return the blob unchanged; it is not stored."""
        return chunks

    def finish(self) -> None:
        """Keep the layer, which is complete and verified."""
        index = self.open_index().read()
        self._keep(self.tree.nodes, index, self.tar_split.getvalue(), self.packages)


class MemoryTree:
    """A `TreeSink` that builds a tree."""

    def __init__(self) -> None:
        self.nodes: Tree = {}

    def add(self, entry: Entry, content: Content = ()) -> None:
        """Create `entry`, in place of anything at its path."""
        old = self.nodes.get(entry.path)
        is_directory = entry.type is EntryType.DIRECTORY
        if old is not None and not (is_directory and old.entry.type is EntryType.DIRECTORY):
            _remove(self.nodes, entry.path)
        if entry.type is EntryType.HARDLINK:
            target = self.nodes[entry.target]
            self.nodes[entry.path] = replace(target, entry=replace(target.entry, path=entry.path))
            return
        self.nodes[entry.path] = Node(entry, b"".join(filled(content)))

    def finish(self) -> None:
        """Do nothing."""


class MemoryTransaction:
    """One change of a repository in memory."""

    def __init__(self, repository: MemoryRepository, purpose: str) -> None:
        self._repository = repository
        self._purpose = purpose
        self._changes: list[Change] = []
        self._exclusive = False
        self._trees: list[tuple[str, Tree, bool]] = []
        self._layers: dict[str, Tree] = {}
        self._small: Tree = {}
        self._removals: list[str] = []

    def link(
        self,
        path: str,
        plan: Iterable[Merged | Generated],
        layers: Sequence[str],
        *,
        anew: bool = False,
    ) -> Mapping[str, int]:
        """Prepare a tree at `path` whose files are those of the layer trees."""
        trees = [self._tree(digest) for digest in layers]
        made: Tree = {}
        for planned in plan:
            entry = planned.entry
            if isinstance(planned, Generated):
                made[entry.path] = Node(entry, planned.content)
            elif entry.type is EntryType.DIRECTORY:
                made[entry.path] = Node(entry)
            else:
                source = trees[planned.layer][planned.source]
                made[entry.path] = replace(source, entry=replace(source.entry, path=entry.path))
        self._trees.append((path, made, anew))
        return {}

    def adopt(self, prepared: MemoryTransaction) -> None:
        """Also publish what another transaction prepared."""
        known = {path for path, _, _ in self._trees}
        self._trees += [tree for tree in prepared._trees if tree[0] not in known]
        self._small = prepared._small | self._small

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Take the writer lock."""
        with self._repository.writing:
            self._exclusive = True
            try:
                yield
            finally:
                self._exclusive = False

    def add_layer(
        self,
        digest: str,
        fixups: Iterable[Fixup],
        layers: Sequence[str],
        *,
        anew: bool = False,
    ) -> None:
        """Publish a staged layer, completed by what `fixups` takes from the layers below it."""
        assert self._exclusive
        path = layout.layer_directory(digest)
        if digest in self._layers:
            return
        if self._repository.exists(path) and not anew:
            self._repository.finished.pop(digest, None)
            return
        if digest not in self._repository.finished:
            raise _gone(digest)
        staged, index, tar_split, packages = self._repository.finished[digest]
        tree = MemoryTree()
        tree.nodes = dict(staged)
        lower = [self._tree(below) for below in layers]
        for fixup in fixups:
            if fixup.layer is None:
                tree.add(fixup.entry)
            else:
                source = lower[fixup.layer][fixup.source]
                _remove(tree.nodes, fixup.entry.path)
                copied = replace(source.entry, path=fixup.entry.path)
                tree.nodes[fixup.entry.path] = Node(copied, source.content)
        self._layers[digest] = tree.nodes
        whole: Tree = {layout.LAYER_INDEX: _file(index)}
        if tar_split:
            whole[layout.LAYER_TAR_SPLIT] = _file(tar_split)
        if packages:
            whole[layout.LAYER_PACKAGES] = _file(packages)
        whole |= {f"{layout.LAYER_TREE}/{at}".rstrip("/"): n for at, n in tree.nodes.items()}
        self._trees.insert(0, (path, whole, anew))

    def add_file(self, path: str, write: Callable[[Path], None]) -> None:
        """Prepare a file at `path`."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "file").touch()
            write(Path(folder, "file"))
            self._small[path] = _file(Path(folder, "file").read_bytes())

    def replace(self, path: str, content: bytes, *, last: bool = False) -> None:
        """Create or replace a small file."""
        self._small[path] = _file(content)

    def symlink(self, path: str, text: str) -> None:
        """Create or replace a symlink."""
        self._small[path] = Node(Entry(path, EntryType.SYMLINK, 0o777, target=text))

    def remove(self, path: str) -> None:
        """Remove a file, a symlink or a whole tree; a missing path is ignored."""
        self._removals.append(path)

    def record(self, name: str, what: str, why: str = "") -> None:
        """Record for the history a change of the image or layer `name`, and its reason."""
        self._changes.append(Change(name, what, why))

    def commit(self) -> None:
        """Make all changes visible, in one step."""
        assert self._exclusive
        repository = self._repository
        nodes = dict(repository.nodes)
        trees = [each for each in self._trees if each[2] or each[0] not in nodes]
        for path, tree, _ in trees:
            _remove(nodes, path)
            _make_parents(nodes, path)
            for below, node in {"": _directory(), **tree}.items():
                at = f"{path}/{below}".rstrip("/")
                _make_parents(nodes, at)
                nodes[at] = node
        for path, node in self._small.items():
            if layout.is_own_file(path):
                _remove(nodes, path)
            elif path in nodes and nodes[path].entry.type is EntryType.DIRECTORY:
                raise PathTaken(
                    f"cannot publish {path}", path=path, why="a directory is at that path"
                )
            _make_parents(nodes, path)
            nodes[path] = node
        for path in self._removals:
            _remove(nodes, path)
            _remove_empty_parents(nodes, path)
        if trees or self._small or self._removals:
            repository.nodes = nodes
            repository.records.append(self._new_record(len(trees)))
            for digest in self._layers:
                repository.finished.pop(digest, None)

    def _new_record(self, trees: int) -> Record:
        return Record(
            id=secrets.token_hex(16),
            time=format_time(datetime.now(UTC)),
            user="",
            host="",
            pid=os.getpid(),
            purpose=self._purpose,
            changes=tuple(self._changes),
            paths={"trees": trees, "files": len(self._small), "removed": len(self._removals)},
        )

    def _tree(self, digest: str) -> Tree:
        return self._layers.get(digest) or self._repository.layer_tree(digest)


def _cut_out(nodes: Tree, path: str) -> Tree:
    start = f"{path}/" if path else ""
    tree = {at[len(start) :]: node for at, node in nodes.items() if at.startswith(start)}
    return {**tree, "": nodes[path]}


def _remove(nodes: Tree, path: str) -> None:
    for below in [each for each in nodes if each == path or each.startswith(f"{path}/")]:
        del nodes[below]


def _make_parents(nodes: Tree, path: str) -> None:
    above = path
    while above := above.rpartition("/")[0]:
        kind = nodes.setdefault(above, _directory()).entry.type
        if kind is not EntryType.DIRECTORY:
            raise PathTaken(f"cannot publish {path}", path=path, why=f"{above} is not a directory")


def _remove_empty_parents(nodes: Tree, path: str) -> None:
    above = path
    while above := above.rpartition("/")[0]:
        if any(each.startswith(f"{above}/") for each in nodes):
            return
        nodes.pop(above, None)


def _directory() -> Node:
    return Node(Entry("", EntryType.DIRECTORY, 0o755))


def _file(content: bytes) -> Node:
    return Node(Entry("", EntryType.FILE, 0o644, size=len(content)), content)


def _gone(digest: str) -> LayerChanged:
    return LayerChanged(digest, why="it is neither published nor staged")
