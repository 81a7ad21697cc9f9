"""The transaction of the CVMFS backend: collects changes, and executes them as server calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from publisher.entry import Entry, EntryType, Fixup, Generated, Merged
from publisher.repository import LayerChanged, PathTaken, RepositoryChanged, RepositoryError
from publisher.repository.cvmfs import pending
from publisher.repository.cvmfs.changes import (
    Call,
    Changes,
    Edit,
    NewLayer,
    NewTree,
    compile_calls,
    top_directories,
)
from publisher.repository.cvmfs.execution import Execution
from publisher.repository.cvmfs.sending import write_plan
from publisher.repository.cvmfs.server import FilesInUse, ServerRefused, TransactionOpen
from publisher.repository.cvmfs.signed_files import RepositoryManifest
from publisher.repository.damaged import read_damaged
from publisher.repository.directory.transaction import DirectoryTransaction
from publisher.repository.disk import write_new_file
from publisher.tree import layout
from publisher.tree.history import Record

_log = logging.getLogger(__name__)


class CvmfsTransaction:
    """One change of a CVMFS repository.

    `mirror` is the transaction that makes the same change in the metadata mirror. Plans of flat
    images are kept in `directory`.
    """

    def __init__(self, execution: Execution, mirror: DirectoryTransaction, directory: Path) -> None:
        self._execution = execution
        self._tree = execution.tree
        self._mirror = mirror
        self._directory = directory
        self._exclusive = False
        self._has_lease = False
        self._layers: dict[str, NewLayer] = {}
        self._trees: dict[str, NewTree] = {}
        self._large: dict[str, Path] = {}
        self._files: dict[str, bytes] = {}
        self._links: dict[str, str] = {}
        self._removals: list[str] = []
        self._cleared: list[str] = []
        # What is replaced, which other publishers of a gateway may change concurrently.
        self._seen: dict[str, object] = {}

    def link(
        self,
        path: str,
        plan: Iterable[Merged | Generated],
        layers: Sequence[str],
        *,
        anew: bool = False,
    ) -> Mapping[str, int]:
        """Prepare a tree at `path` whose files are links to content of the layer trees."""
        if self._tree.exists(path):
            if not anew:
                return {}
            self._cleared.append(path)
        for digest in layers:
            if not self._has_layer(digest):
                raise LayerChanged(digest, why="it was removed")
        planned = self._directory / f"{len(self._trees)}.plan"
        with self._execution.mirror.writing():
            write_plan(planned, plan, layers)
        self._trees[path] = NewTree(path, planned)
        return {}

    def adopt(self, prepared: CvmfsTransaction) -> None:
        """Also publish what another transaction prepared, whose directory has the plans."""
        self._trees = prepared._trees | self._trees
        self._large |= prepared._large
        self._cleared += prepared._cleared

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Take the writer lock, and recover interrupted transactions.

        At a gateway, only leases exclude other publishers. A transaction that sends content does
        not hold a lease of the whole repository meanwhile; it checks the records again under the
        lease of its last call. Other transactions hold the lease from the beginning.
        """
        with self._mirror.exclusive():
            settle(self._execution)
            self._exclusive = True
            try:
                self._take_lease()
                yield
            finally:
                self._exclusive = False
                self._return_lease()

    def _take_lease(self) -> None:
        self._execution.renew_mount()
        if self._execution.configuration.is_gateway and not (self._trees or self._large):
            with self._tree.lock.publishing():
                self._execution.guard.retry(self._execution.open_transaction, stays_open=True)
            self._has_lease = True

    def _return_lease(self) -> None:
        if self._has_lease:
            self._has_lease = False
            with self._tree.lock.publishing():
                self._execution.guard.recover()

    def add_layer(
        self,
        digest: str,
        fixups: Iterable[Fixup],
        layers: Sequence[str],
        *,
        anew: bool = False,
    ) -> None:
        """Publish a staged layer with `fixups`, which refer to `layers`."""
        assert self._exclusive
        path = layout.layer_directory(digest)
        if digest in self._layers:
            return
        if self._tree.exists(path):
            if not anew:
                # Another publisher has published the same layer.
                self._execution.mirror.discard(digest)
                return
            self._cleared.append(path)
        if not self._execution.mirror.is_staged(digest):
            raise LayerChanged(digest, why="its staged copy was discarded concurrently")
        self._layers[digest] = NewLayer(digest, tuple(fixups), tuple(layers))

    def add_file(self, path: str, write: Callable[[Path], None]) -> None:
        """Prepare a file of any size at `path`, also in place of a published one."""
        staged = self._directory / f"{len(self._large)}.file"
        with self._execution.mirror.writing():
            write_new_file(staged, b"")
            write(staged)
        self._large[path] = staged

    def replace(self, path: str, content: bytes, *, last: bool = False) -> None:
        """Create or replace a small file; `last` has no effect, since a revision is atomic."""
        if self._execution.configuration.is_gateway:
            self._seen[path] = read_damaged(self._tree, path)
        self._files[path] = content
        if layout.is_own_file(path) and self._tree.kind(path) not in (None, EntryType.FILE):
            self._cleared.append(path)

    def symlink(self, path: str, text: str) -> None:
        """Create or replace a symlink."""
        if self._execution.configuration.is_gateway:
            self._seen[path] = self._tree.link_text(path)
        self._links[path] = text

    def remove(self, path: str) -> None:
        """Remove a file, a symlink or a whole tree, if it exists."""
        self._removals.append(path)

    def record(self, name: str, what: str, why: str = "") -> None:
        """Add a change of the image or layer `name` to the history."""
        self._mirror.record(name, what, why)

    def commit(self) -> None:
        """Make all changes visible, if possible with one server call.

        Raises:
            ContentRefused: The server refused these changes, and is usable otherwise.
            RepositoryError: The server failed, or did not publish the changes.
            RepositoryChanged: At a gateway, another publisher changed a record concurrently.
        """
        assert self._exclusive
        execution = self._execution
        configuration = execution.configuration
        self._trees = {path: each for path, each in self._trees.items() if self._is_needed(path)}
        changes = self._changes()
        calls = compile_calls(changes, self._tree.published_kind, configuration.is_gateway)
        if not calls:
            return
        mirror_was_current = execution.mirror.is_current()
        before = configuration.published()
        record = self._mirror.new_record(
            len(self._trees) + len(self._layers),
            len(self._mirrored_files()) + len(self._links),
            len(self._removals),
        )
        if configuration.is_gateway:
            calls, left = pending.marked(calls, execution.mirror.tree.root, record)
        else:
            left = pending.plan(calls, before.revision, record)
        self._write_pending(left)
        self._execute_or_explain(calls)
        if left.rest:
            self._write_pending(replace(left, rest=()))
        after = configuration.published()
        self._require_published(before, after, len(calls))
        # At a gateway the mount shows a new revision with the next transaction only, so that
        # content is checked before the call that refers to it.
        if self._tree.is_mounted and not configuration.is_gateway:
            execution.require_visible(self._tree, changes)
        alone = after.revision == before.revision + len(calls)
        self._update_mirror(record, current=mirror_was_current and alone)
        execution.append_to_history(record)  # unless the mirror's commit has done so
        for digest in self._layers:
            execution.mirror.forget_contents(digest)
        execution.mirror.pending.unlink()

    def _is_needed(self, path: str) -> bool:
        """Return whether no other transaction has published the tree at `path` meanwhile."""
        return path in self._cleared or self._tree.published_kind(path) is None

    def _write_pending(self, left: pending.Pending) -> None:
        with self._execution.mirror.writing():
            pending.write(self._execution.mirror.pending, left)

    def _execute_or_explain(self, calls: Sequence[Call]) -> None:
        try:
            self._execute(calls)
        except (TransactionOpen, FilesInUse):
            raise
        except ServerRefused as refused:
            self._return_lease()
            explained = self._execution.explained(refused)
            if explained is None:
                raise
            raise explained from refused

    def _execute(self, calls: Sequence[Call]) -> None:
        match calls:
            case [Edit() as edit] if self._has_lease:
                with self._tree.lock.publishing():
                    self._execution.publish_edit(edit)
                self._execution.guard.forget()
                self._has_lease = False
            case _:
                self._return_lease()
                self._execution.execute(calls, self._check_under_lease)

    def _require_published(
        self, before: RepositoryManifest, after: RepositoryManifest, calls: int
    ) -> None:
        if after.revision >= before.revision + calls:
            return
        name = self._execution.configuration.name
        raise RepositoryError(
            f"cannot publish to {self._execution.url}",
            why=f"cvmfs_server reported success, but revision {before.revision} became "
            f"{after.revision} and not {before.revision + calls}",
            hint=f"run cvmfs_server check {name}",
        )

    def _changes(self) -> Changes:
        kind = self._tree.published_kind
        gateway = self._execution.configuration.is_gateway
        return Changes(
            layers=tuple(self._layers.values()),
            trees=tuple(self._trees.values()),
            files=dict(self._files),
            links=dict(self._links),
            removals=tuple(self._removals),
            cleared=tuple(dict.fromkeys(self._cleared)),
            directories=tuple(
                path for path in top_directories(shards=gateway) if kind(path) is None
            )
            if self._layers or self._trees or self._files or self._large
            else (),
            large=dict(self._large),
        )

    def _check_under_lease(self) -> None:
        """At a gateway, check that the content is published and the records are unchanged."""
        if not self._execution.configuration.is_gateway:
            return
        changes = self._changes()
        content = Changes(changes.layers, changes.trees, large=changes.large)
        view = self._tree.view
        self._execution.require_visible(view, content)
        for path in (*self._files, *self._links):
            now: object = read_damaged(view, path) if path in self._files else view.link_text(path)
            if path in self._seen and now != self._seen[path]:
                raise RepositoryChanged(
                    f"cannot publish {path}", why="another publisher changed it concurrently"
                )

    def _update_mirror(self, record: Record, *, current: bool) -> None:
        """Make the same changes in the mirror; `current` is whether it is then up to date."""
        mirror = self._execution.mirror
        mirror.mark_current(False)
        try:
            with mirror.writing():
                self._commit_to_mirror(record)
        except PathTaken as error:
            _log.warning("the mirror of %s is not up to date: %s", self._execution.url, error)
        else:
            mirror.mark_current(current)

    def _commit_to_mirror(self, record: Record) -> None:
        tree, transaction = self._execution.mirror.tree, self._mirror
        for path in self._trees:
            root = Merged(Entry("", EntryType.DIRECTORY, 0o755), 0, "")
            transaction.link(path, [root], [], anew=tree.exists(path))
        for digest in self._layers:
            exists = tree.exists(layout.layer_directory(digest))
            transaction.add_layer(digest, (), (), anew=exists)
        for path, content in self._mirrored_files().items():
            transaction.replace(path, content)
        for path, text in self._links.items():
            transaction.symlink(path, text)
        for path in self._removals:
            transaction.remove(path)
        transaction.commit(record)

    def _mirrored_files(self) -> Mapping[str, bytes]:
        """The mirror has the names of large files, and no content of them or of flat images."""
        files = dict.fromkeys(self._large, b"") | self._files
        return {p: content for p, content in files.items() if not p.startswith(f"{layout.FLAT}/")}

    def _has_layer(self, digest: str) -> bool:
        return (
            self._tree.exists(layout.layer_index(digest))
            or self._execution.mirror.is_staged(digest)
            or self._tree.exists(layout.layer_tree(digest))
        )


def settle(execution: Execution) -> None:
    """Complete or discard interrupted transactions. Requires the writer lock."""
    with execution.tree.lock.publishing():
        execution.guard.recover(of_earlier_run=True)
    execution.guard.wait_until_free()
    execution.finish_pending()
    execution.mirror.delete_orphans()
