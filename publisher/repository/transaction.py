"""The transaction of the directory backend: everything is prepared aside, then renamed."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from publisher import layout
from publisher.entry import Fixup, Merged
from publisher.records import format_time
from publisher.repository import PathTaken, RepositoryChanged, journal
from publisher.repository.disk import write_new_file
from publisher.repository.history import Change, Record
from publisher.repository.journal import Rename
from publisher.repository.linker import apply_fixups, link_tree

if TYPE_CHECKING:
    from publisher.repository.directory import DirectoryRepository


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
        self._added: set[str] = set()
        self._trees: list[Rename] = []
        self._small: list[Rename] = []
        self._links: list[Rename] = []
        self._removals: list[Rename] = []

    def link(self, path: str, plan: Iterable[Merged], layers: Sequence[str]) -> None:
        """Prepare a tree at `path` whose files are links to content of the layer trees."""
        staged = self._new_staged()
        trees = self._trees_of(layers)
        try:
            link_tree(staged, plan, trees)
        except FileNotFoundError as error:
            # Another process may have published, or collected, what we were linking from.
            for digest, tree in zip(layers, trees, strict=True):
                if not tree.exists():
                    raise RepositoryChanged(
                        f"cannot use layer {digest}", why="it was moved while it was being linked"
                    ) from error
            raise
        self._trees.append(self._rename(staged, path))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep every other writer out, having finished or discarded what a dead one left."""
        with self._repository.lock.hold(self._purpose):
            journal.apply(self._root, self._staging.journal)
            self._staging.sweep()
            self._exclusive = True
            try:
                yield
            finally:
                self._exclusive = False

    def add_layer(self, digest: str, fixups: Iterable[Fixup], layers: Sequence[str]) -> None:
        """Publish a staged layer, completed by what `fixups` takes from the layers below it."""
        assert self._exclusive
        path = layout.layer_directory(digest)
        staged = self._repository.locate_layer(digest)
        if digest in self._added or staged == self._root / path:
            return
        self._added.add(digest)
        apply_fixups(staged / layout.LAYER_TREE, fixups, self._trees_of(layers))
        self._trees.insert(0, self._rename(staged, path))

    def replace(self, path: str, content: bytes) -> None:
        """Create or replace a small file."""
        staged = self._new_staged()
        write_new_file(staged, content)
        self._small.append(self._rename(staged, path))

    def symlink(self, path: str, text: str) -> None:
        """Create or replace a symlink."""
        staged = self._new_staged()
        staged.symlink_to(text)
        self._links.append(self._rename(staged, path))

    def remove(self, path: str) -> None:
        """Remove a file, a symlink or a whole tree; what is not there needs no removing."""
        trash = self._staging.new_trash()
        self._removals.append(Rename(path, trash.relative_to(self._root).as_posix()))

    def record(self, name: str, what: str, why: str = "") -> None:
        """Say for the history what happens to the image or layer `name`, and why."""
        self._changes.append(Change(name, what, why))

    def commit(self) -> None:
        """Make it all visible: write the journal, then carry it out."""
        assert self._exclusive
        # Content-addressed: a tree that somebody else published meanwhile is the same tree.
        trees = [r for r in self._trees if not os.path.lexists(self._root / r.target)]
        for rename in (*trees, *self._small, *self._links):
            _check_target(self._root, rename.target)
        operations = [*trees, *self._small, *self._links, *self._removals]
        if operations:
            journal.write(self._staging.journal, operations, self._new_record(len(trees)))
            journal.apply(self._root, self._staging.journal)
            self._staging.sweep()

    def _new_record(self, trees: int) -> Record:
        small = [*self._small, *self._links]
        return Record(
            id=secrets.token_hex(16),
            time=format_time(datetime.now(UTC)),
            user=getpass.getuser(),
            host=socket.gethostname(),
            pid=os.getpid(),
            purpose=self._purpose,
            changes=tuple(self._changes),
            paths={"trees": trees, "files": len(small), "removed": len(self._removals)},
        )

    def _trees_of(self, layers: Sequence[str]) -> list[Path]:
        return [self._repository.locate_layer(digest) / layout.LAYER_TREE for digest in layers]

    def _new_staged(self) -> Path:
        self._staged_count += 1
        return self._directory / str(self._staged_count)

    def _rename(self, staged: Path, path: str) -> Rename:
        return Rename(staged.relative_to(self._root).as_posix(), path)


def _check_target(root: Path, target: str) -> None:
    """Refuse, before the commit point, what could not be carried out after it."""
    path = root / target
    if path.is_dir() and not path.is_symlink():
        raise PathTaken(
            f"cannot publish {target}",
            why="a directory stands there that the publisher did not make",
            hint=f"move {path} away",
        )
    for parent in path.relative_to(root).parents:
        above = root / parent
        if os.path.lexists(above) and not above.is_dir():
            raise PathTaken(
                f"cannot publish {target}",
                why=f"{parent} is not a directory",
                hint=f"move {above} away",
            )
