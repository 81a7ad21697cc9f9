"""The transaction of the directory backend: everything is prepared aside, then renamed."""

from __future__ import annotations

import errno
import itertools
import os
import pwd
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.entry import Fixup, Generated, Merged
from publisher.repository import PathTaken, RepositoryChanged
from publisher.repository.directory import journal
from publisher.repository.directory.journal import Rename
from publisher.repository.directory.linker import apply_fixups, link_tree
from publisher.repository.disk import write_new_file
from publisher.times import format_time
from publisher.tree import layout
from publisher.tree.history import Change, Record

if TYPE_CHECKING:
    from publisher.repository.directory.repository import DirectoryRepository


class DirectoryTransaction:
    """One change of a directory repository, prepared in the private `directory`."""

    def __init__(self, repository: DirectoryRepository, directory: Path, purpose: str) -> None:
        self._repository = repository
        self._root = repository.root
        self._staging = repository.staging
        self._directory = directory
        self._purpose = purpose
        self._changes: list[Change] = []
        self._exclusive = False
        self._staged_count = 0
        self._added: dict[str, Path] = {}
        self._linked_from: dict[str, int] = {}
        self._reached: set[Path] = set()
        self._trees: list[Rename] = []
        self._small: list[Rename] = []
        self._links: list[Rename] = []
        self._last: list[Rename] = []
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
        trees = self._trees_of(layers)
        inodes = [_inode(tree) for tree in trees]
        try:
            report = link_tree(staged, plan, trees)
        except FileNotFoundError as error:
            # Another process may have published, or collected, what we were linking from.
            for digest, tree, inode in zip(layers, trees, inodes, strict=True):
                if not inode or _inode(tree) != inode:
                    raise _moved(digest) from error
            raise
        self._linked_from |= zip(layers, inodes, strict=True)
        self._trees.append(self._new_tree(staged, path, anew))
        return report.refused

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep every other writer out, having finished or discarded what a dead one left."""
        try:
            with self._repository.lock.hold(self._purpose):
                self._repository.settle()
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
            self._staging.give_up(staged)  # somebody else was quicker, with the same bytes
            return
        if not staged.exists():
            raise RepositoryChanged(
                f"cannot use layer {digest}", why="what was staged of it was given up meanwhile"
            )
        waiting = list(fixups)
        if waiting:
            # Half completed it would be neither what was verified nor what is published: if this
            # transaction does not come to its end, the layer has to be fetched again.
            staged = staged.rename(self._new_staged())
        self._added[digest] = staged
        apply_fixups(staged / layout.LAYER_TREE, waiting, self._trees_of(layers))
        self._trees.insert(0, self._new_tree(staged, path, anew))

    def replace(self, path: str, content: bytes, *, last: bool = False) -> None:
        """Create or replace a small file; `last`: only once all else that is new is visible."""
        staged = self._new_staged()
        write_new_file(staged, content)
        (self._last if last else self._small).append(self._rename(staged, path))

    def symlink(self, path: str, text: str) -> None:
        """Create or replace a symlink."""
        staged = self._new_staged()
        staged.symlink_to(text)
        self._links.append(self._rename(staged, path))

    def remove(self, path: str) -> None:
        """Remove a file, a symlink or a whole tree; what is not there needs no removing."""
        self._removals.append(self._to_trash(path))

    def record(self, name: str, what: str, why: str = "") -> None:
        """Say for the history what happens to the image or layer `name`, and why."""
        self._changes.append(Change(name, what, why))

    def commit(self) -> None:
        """Make it all visible: write the journal, then carry it out."""
        assert self._exclusive
        for digest, inode in self._linked_from.items():
            # Another's repair may have replaced it: what we link to is what was damaged of it.
            if digest not in self._added and _inode(*self._trees_of([digest])) != inode:
                raise _moved(digest)
        # Content-addressed: a tree that somebody else published meanwhile is the same tree.
        trees = [r for r in self._trees if r.inode or not os.path.lexists(self._root / r.target)]
        replaced = [self._to_trash(r.source) for r in trees if r.inode]
        phases = [trees, self._small, self._links, self._last, [*self._removals, *replaced]]
        phases = [phase for phase in phases if phase]
        for rename in itertools.chain(*phases):
            self._check(rename)
        operations = [
            replace(rename, after_sync=rename is phase[0] and phase is not phases[0])
            for phase in phases
            for rename in phase
        ]
        if operations:
            record = self._new_record(len(trees))
            coming = tuple(f"{tree.target}/" for tree in trees)
            targets = (rename.target for rename in operations)
            self._staging.make_places(
                self._directory, (target for target in targets if not target.startswith(coming))
            )
            try:
                journal.write(self._staging.journal, operations, record)
            except OSError:
                self._staging.take_back_places(self._directory)
                raise
            journal.apply(self._root, self._staging.journal)

    def _new_record(self, trees: int) -> Record:
        small = [*self._small, *self._links, *self._last]
        return Record(
            id=secrets.token_hex(16),
            time=format_time(datetime.now(UTC)),
            user=_user_name(),
            host=socket.gethostname(),
            pid=os.getpid(),
            purpose=self._purpose,
            changes=tuple(self._changes),
            paths={"trees": trees, "files": len(small), "removed": len(self._removals)},
        )

    def _trees_of(self, layers: Sequence[str]) -> list[Path]:
        return [
            (self._added.get(digest) or self._repository.locate_layer(digest)) / layout.LAYER_TREE
            for digest in layers
        ]

    def _new_staged(self) -> Path:
        self._staged_count += 1
        return self._directory / str(self._staged_count)

    def _rename(self, staged: Path, path: str) -> Rename:
        return Rename(staged.relative_to(self._root).as_posix(), path)

    def _new_tree(self, staged: Path, path: str, anew: bool) -> Rename:
        # Only a directory that stands there already changes places with the new one.
        inode = staged.stat().st_ino if anew and (self._root / path).is_dir() else 0
        return replace(self._rename(staged, path), inode=inode)

    def _to_trash(self, path: str) -> Rename:
        return Rename(path, self._staging.new_trash().relative_to(self._root).as_posix())

    def _check(self, rename: Rename) -> None:
        """Refuse, before the commit point, what could not be carried out after it."""
        target = self._root / rename.target
        is_tree = (self._root / rename.source).is_dir()
        if target.is_dir() and not target.is_symlink() and not is_tree:
            raise PathTaken(
                f"cannot publish {rename.target}",
                why="a directory stands there that the publisher did not make",
                hint=f"move {target} away",
            )
        if os.path.lexists(self._root / rename.source):
            self._check_parent(rename.source)
            self._check_parent(rename.target)

    def _check_parent(self, path: str) -> None:
        """Refuse a place whose directory cannot be made, written to or renamed into."""
        place = self._root / path
        parents = [parent for parent in place.parents if parent.is_relative_to(self._root)]
        above = next(parent for parent in parents if os.path.lexists(parent))
        links = [parent for parent in parents if parent != self._root and parent.is_symlink()]
        if links:
            above = links[0]
        if links or not above.is_dir():
            why = f"{above.relative_to(self._root)} is not a directory"
        elif not os.access(above, os.W_OK | os.X_OK):
            why = f"{above} is not ours to write to"
        elif not self._reaches(above):
            why = f"{above} is another filesystem than {self._staging.directory}, or mounted"
        else:
            return
        raise PathTaken(
            f"cannot publish {path}", why=why, hint=f"move {above} away, or put it right"
        )

    def _reaches(self, directory: Path) -> bool:
        """Whether what is staged can be renamed into `directory`.

        Only the kernel knows: a bind mount has the same device number, and refuses nevertheless. It
        does so before it finds out that what we ask for is not there.
        """
        if directory in self._reached:
            return True
        try:
            (self._directory / "nothing").rename(directory / secrets.token_hex(16))
        except FileNotFoundError:
            self._reached.add(directory)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        return directory in self._reached


def _inode(tree: Path) -> int:
    """What the tree is known by wherever it is moved to; 0 where there is none."""
    try:
        return tree.stat().st_ino
    except FileNotFoundError:
        return 0


def _moved(digest: str) -> RepositoryChanged:
    return RepositoryChanged(
        f"cannot use layer {digest}", why="it was moved or replaced while it was being linked"
    )


def _user_name() -> str:
    """The name of who we run as, or the number where that has no name (as in containers)."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
