"""The transaction of the directory backend: prepared in the staging space, then renamed."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from publisher.entry import Fixup, FlatPlan, Generated, Merged
from publisher.lazy import dataclass
from publisher.repository import LayerChanged, LayerDamaged
from publisher.repository.directory import journal
from publisher.repository.directory.journal import Rename
from publisher.repository.directory.linker import NOT_AS_INDEXED, LinkJob, apply_fixups, link_tree
from publisher.repository.directory.obstacles import Obstacles
from publisher.repository.directory.workspace import Workspace
from publisher.repository.disk import write_new_file
from publisher.times import format_time, utc_now
from publisher.tree import layout
from publisher.tree.history import Change, Record

_MANY_ENTRIES = 10_000
"""The entries of the layers of an image for which a process of its own is worth its start."""


@dataclass(frozen=True, slots=True)
class _Incomplete:
    """A new layer that needs `fixups` from `layers`, which it gets in the directory `place`."""

    digest: str
    place: Path
    fixups: Sequence[Fixup]
    layers: Sequence[str]


class DirectoryTransaction:
    """One change of a directory repository, prepared in the private `directory`."""

    def __init__(self, workspace: Workspace, directory: Path, purpose: str) -> None:
        self._workspace = workspace
        self._root = workspace.root
        self._staging = workspace.staging
        self._directory = directory
        self._purpose = purpose
        self._changes: list[Change] = []
        self._exclusive = False
        self._staged_count = 0
        self._added: dict[str, Path] = {}
        self._incomplete: list[_Incomplete] = []
        # The inode of each layer tree that flat images were linked from.
        self._linked_from: dict[str, int] = {}
        self._trees: list[Rename] = []
        self._contents: list[Rename] = []
        self._files: list[Rename] = []
        self._links: list[Rename] = []
        self._last_files: list[Rename] = []
        self._removals: list[Rename] = []

    def link(
        self,
        path: str,
        plan: Iterable[Merged | Generated],
        layers: Sequence[str],
        *,
        anew: bool = False,
    ) -> Mapping[str, int]:
        """Prepare a tree at `path` whose files are links to content of the layer trees."""
        staged = self._new_staged()
        trees = [self._tree_of(digest) for digest in layers]
        inodes = [_inode(tree) for tree in trees]
        try:
            refused = self._linked(staged, plan, trees)
        except OSError as error:
            if error.errno not in NOT_AS_INDEXED:
                raise
            # Another process may have published, or collected, the tree that was linked from.
            for digest, tree, inode in zip(layers, trees, inodes, strict=True):
                if not inode or _inode(tree) != inode:
                    raise _moved(digest) from error
            raise LayerDamaged(error.filename, why=str(error.strerror)) from error
        self._linked_from |= zip(layers, inodes, strict=True)
        self._trees.append(self._new_tree(staged, path, anew))
        return refused

    def _linked(
        self, staged: Path, plan: Iterable[Merged | Generated], trees: Sequence[Path]
    ) -> Mapping[str, int]:
        link = self._workspace.link
        if link is None or not isinstance(plan, FlatPlan) or plan.entries < _MANY_ENTRIES:
            return link_tree(staged, plan, trees).refused
        layers = [tree.parent for tree in trees]
        return link(LinkJob(self._root, staged, layers, plan.generated))

    def adopt(self, prepared: DirectoryTransaction) -> None:
        """Also publish what another transaction prepared, in its private directory."""
        for digest, inode in prepared._linked_from.items():
            if self._linked_from.setdefault(digest, inode) != inode:
                raise _moved(digest)
        known = {tree.target for tree in self._trees}
        self._trees += [tree for tree in prepared._trees if tree.target not in known]
        self._contents += prepared._contents

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Take the writer lock; first finish or discard what an ended process left."""
        try:
            with self._workspace.lock.hold(self._purpose):
                self._workspace.settle()
                self._exclusive = True
                try:
                    yield
                finally:
                    self._exclusive = False
        finally:
            self._staging.empty_trash()

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
        staged = self._staging.finished_layer(digest)
        if digest in self._added:
            return
        if os.path.lexists(self._root / path) and not anew:
            self._staging.move_to_trash(staged)  # another publisher published the same bytes first
            return
        if not staged.exists():
            raise LayerChanged(digest, why="its staged copy was discarded concurrently")
        self._added[digest] = staged
        needed = tuple(fixups)
        tree = self._new_tree(staged, path, anew)
        if needed:
            place = self._new_staged()
            self._incomplete.append(_Incomplete(digest, place, needed, layers))
            tree = replace(tree, source=place.relative_to(self._root).as_posix())
        self._trees.insert(0, tree)

    def add_file(self, path: str, write: Callable[[Path], None]) -> None:
        """Prepare a file of any size at `path`, also in place of a published one."""
        staged = self._new_staged()
        write_new_file(staged, b"")
        write(staged)
        self._contents.append(self._rename(staged, path))

    def replace(self, path: str, content: bytes, *, last: bool = False) -> None:
        """Create or replace a small file; `last`: only when all other changes are visible."""
        staged = self._new_staged()
        write_new_file(staged, content)
        renames = self._last_files if last else self._files
        target = self._root / path
        # A directory in the place of a record is exchanged with it, and then removed.
        is_directory = target.is_dir() and not target.is_symlink()
        inode = staged.stat().st_ino if is_directory and layout.is_own_file(path) else 0
        renames.append(replace(self._rename(staged, path), inode=inode))

    def symlink(self, path: str, text: str) -> None:
        """Create or replace a symlink."""
        staged = self._new_staged()
        staged.symlink_to(text)
        self._links.append(self._rename(staged, path))

    def remove(self, path: str) -> None:
        """Remove a file, a symlink or a whole tree; a path that is missing is ignored."""
        self._removals.append(self._to_trash(path))

    def record(self, name: str, what: str, why: str = "") -> None:
        """Add to the history what happens to the image or layer `name`, and why."""
        self._changes.append(Change(name, what, why))

    def commit(self, record: Record | None = None) -> None:
        """Make the changes visible: check them, write the journal, execute it.

        `record` is the line in the history; by default a new one that counts these changes.
        """
        assert self._exclusive
        self._check_linked_layers()
        trees = self._trees_to_publish()
        operations = self._operations(trees)
        if not operations:
            return
        obstacles = Obstacles(self._root, self._directory)
        for operation in operations:
            obstacles.check(operation)
        self._make_parents(trees, operations)
        try:
            record = record or self._new_record(len(trees))
            journal.write(self._staging.journal, operations, record, self._complete_layers)
        except OSError:
            self._staging.remove_unused_parents(self._directory)
            raise
        journal.apply(self._root, self._staging.journal)

    def _complete_layers(self) -> None:
        """Complete the new layers by what they need from those below them.

        A partly completed layer is neither what was verified nor what is published. It leaves the
        finished layers, so that it is fetched again if this transaction fails from now on.
        """
        for each in self._incomplete:
            self._added[each.digest] = self._added[each.digest].rename(each.place)
            lower = {fixup.layer for fixup in each.fixups if fixup.layer is not None}
            trees = {number: self._tree_of(each.layers[number]) for number in lower}
            apply_fixups(each.place / layout.LAYER_TREE, each.fixups, trees)

    def _check_linked_layers(self) -> None:
        """Raise LayerChanged if a layer tree that was linked from has been replaced since.

        A repair replaces a damaged tree: the links would keep the damaged files.
        """
        for digest, inode in self._linked_from.items():
            if digest not in self._added and _inode(self._tree_of(digest)) != inode:
                raise _moved(digest)

    def _trees_to_publish(self) -> list[Rename]:
        """Return the trees that are not published yet, or replace published ones.

        Trees are content-addressed: one that another publisher published first is the same.
        """
        return [
            tree
            for tree in self._trees
            if tree.inode or not os.path.lexists(self._root / tree.target)
        ]

    def _operations(self, trees: list[Rename]) -> list[Rename]:
        """Content, then the records and links that name it, then removals.

        A tree that is replaced is exchanged with the new one, and then removed from its place.
        Records and links share a phase: after a power failure, and until the next writer executes
        the journal, each of them may be old or new, and both name content that exists.
        """
        new = (*trees, *self._files, *self._last_files)
        replaced = [self._to_trash(each.source) for each in new if each.inode]
        return _in_phases(
            [*trees, *self._contents],
            [*self._files, *self._links],
            self._last_files,
            [*self._removals, *replaced],
        )

    def _make_parents(self, trees: Sequence[Rename], operations: Sequence[Rename]) -> None:
        """Create the directories to rename into, except those that are part of a tree."""
        inside = tuple(f"{tree.target}/" for tree in trees)
        targets = (operation.target for operation in operations)
        self._staging.make_parents(
            self._directory, (target for target in targets if not target.startswith(inside))
        )

    def _new_record(self, trees: int) -> Record:
        small = len(self._files) + len(self._links) + len(self._last_files)
        return self.new_record(trees, small + len(self._contents), len(self._removals))

    def new_record(self, trees: int, files: int, removed: int) -> Record:
        """Return a line for the history, with these numbers of paths and the recorded changes."""
        return Record(
            id=os.urandom(16).hex(),
            time=format_time(utc_now()),
            user=_user_name(),
            host=socket.gethostname(),
            pid=os.getpid(),
            purpose=self._purpose,
            changes=tuple(self._changes),
            paths={"trees": trees, "files": files, "removed": removed},
        )

    def _tree_of(self, digest: str) -> Path:
        layer = self._added.get(digest) or self._workspace.locate_layer(digest)
        return layer / layout.LAYER_TREE

    def _new_staged(self) -> Path:
        self._staged_count += 1
        return self._directory / str(self._staged_count)

    def _rename(self, staged: Path, path: str) -> Rename:
        return Rename(staged.relative_to(self._root).as_posix(), path)

    def _new_tree(self, staged: Path, path: str, anew: bool) -> Rename:
        # Only a directory that is already published is exchanged with the new one.
        inode = staged.stat().st_ino if anew and (self._root / path).is_dir() else 0
        return replace(self._rename(staged, path), inode=inode)

    def _to_trash(self, path: str) -> Rename:
        return Rename(path, self._staging.new_trash().relative_to(self._root).as_posix())


def _in_phases(*phases: Sequence[Rename]) -> list[Rename]:
    """Return the renames of all phases in order; each phase is on disk before the next begins."""
    begun = [phase for phase in phases if phase]
    return [
        replace(rename, after_sync=rename is phase[0] and phase is not begun[0])
        for phase in begun
        for rename in phase
    ]


def _inode(tree: Path) -> int:
    """Return the inode of `tree`, which it keeps wherever it is moved to; 0 if it is missing."""
    try:
        return tree.stat().st_ino
    except FileNotFoundError:
        return 0


def _moved(digest: str) -> LayerChanged:
    return LayerChanged(digest, why="it was moved or replaced while it was being linked")


def _user_name() -> str:
    """Return the name of the user that this process runs as, or its number where it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
