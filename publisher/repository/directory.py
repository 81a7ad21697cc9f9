"""The directory backend: a published tree in a plain directory, exported read-only to others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from publisher import layout
from publisher.entry import Fixup, Merged
from publisher.layout import RepositoryURL
from publisher.repository import RepositoryChanged, RepositoryError, journal
from publisher.repository.disk import (
    make_directories,
    remove_tree,
    sync_filesystem,
    write_new_file,
)
from publisher.repository.journal import Rename
from publisher.repository.linker import apply_fixups, link_tree
from publisher.repository.lock import WriterLock
from publisher.repository.staging import Staging
from publisher.repository.tree import TreeWriter

DEFAULT_WAIT = 600.0
"""Seconds to wait for another writer. Commits are short; only a collection may hold on longer."""


class DirectoryRepository:
    """A published tree in the directory that `url` names.

    `writable` prepares it for transactions: the directory is created if only itself is missing, and
    refused if it holds something that is not a published tree. `wait` is how many seconds to wait
    for another writer; `on_wait` is told, in words, when that begins.
    """

    def __init__(
        self,
        url: RepositoryURL,
        *,
        writable: bool = False,
        wait: float = DEFAULT_WAIT,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.url = url
        # Fixed once, so that the repository stays the same wherever the process goes later.
        self.root = Path(url.location).absolute()
        if writable:
            _prepare(self.root)
            self._staging: Staging | None = Staging(self.root)
            self._lock = WriterLock(self._staging.directory, wait, on_wait)
        elif not self.root.is_dir():
            raise RepositoryError(
                f"cannot read repository {url}",
                why="there is no such directory",
                hint="give its place with --repository, or publish into it first",
            )
        else:
            self._staging = None

    def read(self, path: str) -> bytes | None:
        """A small file's bytes; None where there is none."""
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def link_text(self, path: str) -> str | None:
        """A symlink's text; None where there is none."""
        try:
            return os.readlink(self.root / path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            if self.exists(path):  # something else than a symlink
                return None
            raise

    def exists(self, path: str) -> bool:
        """Whether anything is at `path` (a symlink counts, whatever it points to)."""
        return os.path.lexists(self.root / path)

    def names(self) -> Iterator[str]:
        """Every published image's name, sorted."""
        top = self.root / layout.METADATA
        for directory, subdirectories, files in os.walk(top, onerror=_raise):
            here = Path(directory)
            if here == top:
                subdirectories[:] = [
                    name
                    for name in subdirectories
                    if not name.startswith(".") or name == layout.MULTIARCH
                ]
            subdirectories.sort()
            if layout.MANIFEST_FILE in files:
                yield here.relative_to(top).as_posix()

    def has_layer(self, digest: str) -> bool:
        """Whether the layer need not be fetched: it is published, or staged by an earlier run."""
        return self._locate_layer(digest) is not None

    def open_index(self, digest: str) -> BinaryIO:
        """The index of a published or staged layer; RepositoryChanged where there is neither."""
        try:
            return (self._layer(digest) / layout.LAYER_INDEX).open("rb")
        except FileNotFoundError as error:
            raise _gone(digest) from error

    @contextmanager
    def stage_layer(self, digest: str) -> Iterator[DirectoryLayerStage]:
        """Begin to unpack a layer; without `finish` nothing of it is kept."""
        staging = self._writable()
        directory = staging.new_path()
        stage = DirectoryLayerStage(directory, staging.finished_layer(digest))
        try:
            yield stage
        finally:
            stage.close()
            remove_tree(directory)

    @contextmanager
    def transaction(self, purpose: str) -> Iterator[DirectoryTransaction]:
        """Begin a change; `purpose` tells others what goes on ("ingest of …")."""
        directory = self._writable().new_path()
        directory.mkdir(mode=0o700)
        try:
            yield DirectoryTransaction(self, directory, purpose)
        finally:
            remove_tree(directory)

    def close(self) -> None:
        """Let go of private staging space. What is finished stays for the next run."""
        if self._staging is not None:
            self._staging.close()

    def recover(self) -> None:
        """Finish what a dead writer committed, discard what it did not. Only under the lock."""
        staging = self._writable()
        journal.apply(self.root, staging.journal)
        staging.sweep()

    def _writable(self) -> Staging:
        assert self._staging is not None, "the repository was opened for reading only"
        return self._staging

    def _locate_layer(self, digest: str) -> Path | None:
        published = self.root / layout.layer_directory(digest)
        if (published / layout.LAYER_INDEX).exists():
            return published
        if self._staging is not None and self._staging.finished_layer(digest).exists():
            return self._staging.finished_layer(digest)
        return None

    def _layer(self, digest: str) -> Path:
        found = self._locate_layer(digest)
        if found is None:
            raise _gone(digest)
        return found


class DirectoryLayerStage:
    """One layer being unpacked: `layerfs/` written by `sink`, and its index beside it."""

    def __init__(self, directory: Path, finished: Path) -> None:
        self._directory = directory
        self._finished = finished
        tree = directory / layout.LAYER_TREE
        index = directory / layout.LAYER_INDEX
        make_directories(tree)
        make_directories(index.parent)
        directory.chmod(0o755)
        self.sink = TreeWriter(tree)
        self.index: BinaryIO = index.open("xb")
        os.fchmod(self.index.fileno(), 0o644)

    def finish(self) -> None:
        """Keep the layer, complete and verified, for the transaction that publishes it."""
        self.close()
        # On disk before it gets its final name: the next run trusts what is there.
        sync_filesystem(self._directory)
        if not self._finished.exists():
            try:
                self._directory.rename(self._finished)
            except OSError:
                if not self._finished.exists():  # else another run was quicker, with the same bytes
                    raise

    def close(self) -> None:
        """Let go of open files."""
        self.sink.close()
        self.index.close()


class DirectoryTransaction:
    """One change of a directory repository, prepared in the private `directory`."""

    def __init__(self, repository: DirectoryRepository, directory: Path, purpose: str) -> None:
        self._repository = repository
        self._directory = directory
        self._purpose = purpose
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
        trees = [self._repository._layer(digest) / layout.LAYER_TREE for digest in layers]
        try:
            link_tree(staged, plan, trees)
        except FileNotFoundError as error:
            missing = [d for d in layers if not self._repository.has_layer(d)]
            moved = [tree for tree in trees if not tree.exists()]
            if not moved:
                raise
            raise _gone(missing[0] if missing else layers[trees.index(moved[0])]) from error
        self._trees.append(self._rename(staged, path))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep every other writer out, having finished or discarded what a dead one left."""
        with self._repository._lock.hold(self._purpose):
            self._repository.recover()
            self._exclusive = True
            try:
                yield
            finally:
                self._exclusive = False

    def add_layer(self, digest: str, fixups: Iterable[Fixup], layers: Sequence[str]) -> None:
        """Publish a staged layer, completed by what `fixups` takes from the layers below it."""
        assert self._exclusive
        path = layout.layer_directory(digest)
        staged = self._repository._layer(digest)
        if digest in self._added or staged == self._repository.root / path:
            return
        self._added.add(digest)
        trees = [self._repository._layer(lower) / layout.LAYER_TREE for lower in layers]
        apply_fixups(staged / layout.LAYER_TREE, fixups, trees)
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
        trash = self._repository._writable().new_trash()
        self._removals.append(Rename(path, trash.relative_to(self._repository.root).as_posix()))

    def commit(self) -> None:
        """Make it all visible: write the journal, then carry it out."""
        assert self._exclusive
        root = self._repository.root
        # Content-addressed: a tree that somebody else published meanwhile is the same tree.
        trees = [rename for rename in self._trees if not os.path.lexists(root / rename.target)]
        for rename in (*trees, *self._small, *self._links):
            _check_target(root, rename.target)
        operations = [*trees, *self._small, *self._links, *self._removals]
        if not operations:
            return
        staging = self._repository._writable()
        journal.write(staging.journal, operations, self._purpose)
        journal.apply(root, staging.journal)
        staging.sweep()

    def _new_staged(self) -> Path:
        self._staged_count += 1
        return self._directory / str(self._staged_count)

    def _rename(self, staged: Path, path: str) -> Rename:
        return Rename(staged.relative_to(self._repository.root).as_posix(), path)


def _prepare(root: Path) -> None:
    try:
        root.mkdir(mode=0o755, exist_ok=True)
    except FileNotFoundError as error:
        raise RepositoryError(
            f"cannot use repository {root}",
            why=f"{root.parent} does not exist",
            hint=f"create it (mkdir -p {root.parent}), or mount what should be there",
        ) from error
    except FileExistsError as error:
        raise RepositoryError(
            f"cannot use repository {root}", why="it is not a directory"
        ) from error
    known = {layout.METADATA, layout.LAYERS, layout.FLAT}
    present = {entry.name for entry in os.scandir(root)} - {"lost+found"}
    if present and not present & known:
        raise RepositoryError(
            f"cannot use repository {root}",
            why=f"it holds {sorted(present)[0]!r} but no published tree",
            hint="choose an empty directory, so that nothing of yours gets mixed in",
        )


def _check_target(root: Path, target: str) -> None:
    """Refuse, before the commit point, what could not be carried out after it."""
    path = root / target
    if path.is_dir() and not path.is_symlink():
        raise RepositoryError(
            f"cannot publish {target}",
            why="a directory stands there that the publisher did not make",
            hint=f"move {path} away",
        )
    for parent in path.relative_to(root).parents:
        above = root / parent
        if os.path.lexists(above) and not above.is_dir():
            raise RepositoryError(
                f"cannot publish {target}",
                why=f"{parent} is not a directory",
                hint=f"move {above} away",
            )


def _gone(digest: str) -> RepositoryChanged:
    return RepositoryChanged(
        f"cannot use layer {digest}", why="it was collected while this image was prepared"
    )


def _raise(error: OSError) -> None:
    raise error
