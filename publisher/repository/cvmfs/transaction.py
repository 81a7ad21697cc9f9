"""The transaction of the CVMFS backend: collected, compiled into server calls, sent, verified."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from publisher import layout
from publisher.entry import Entry, EntryType, Fixup, Generated, Merged
from publisher.repository import PathTaken, RepositoryChanged, RepositoryError
from publisher.repository.cvmfs import editing, pending
from publisher.repository.cvmfs.catalogs import skeleton
from publisher.repository.cvmfs.changes import (
    Call,
    Changes,
    Edit,
    NewLayer,
    NewTree,
    compile_calls,
)
from publisher.repository.cvmfs.planned import write_plan
from publisher.repository.cvmfs.sending import send
from publisher.repository.cvmfs.visible import require_visible
from publisher.repository.transaction import DirectoryTransaction

if TYPE_CHECKING:
    from publisher.repository.cvmfs.repository import CvmfsRepository

_log = logging.getLogger(__name__)


class CvmfsTransaction:
    """One change of a CVMFS repository; `shadow` is the same change of our small tree."""

    def __init__(
        self, repository: CvmfsRepository, shadow: DirectoryTransaction, directory: Path
    ) -> None:
        self._repository = repository
        self._shadow = shadow
        self._directory = directory
        self._exclusive = False
        self._layers: dict[str, NewLayer] = {}
        self._trees: dict[str, NewTree] = {}
        self._files: dict[str, bytes] = {}
        self._links: dict[str, str] = {}
        self._removals: list[str] = []
        self._cleared: list[str] = []
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
        if self._repository.exists(path):
            if not anew:
                return {}
            self._cleared.append(path)
        for digest in layers:
            if not self._repository.has_layer(digest) and not self._repository.exists(
                layout.layer_tree(digest)
            ):
                raise RepositoryChanged(f"cannot use layer {digest}", why="it was collected")
        planned = self._directory / f"{len(self._trees)}.plan"
        write_plan(planned, plan, layers, self._repository.engine.catalogs)
        self._trees[path] = NewTree(path, planned)
        return {}

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep every other writer out, having finished or discarded what a dead one left."""
        with self._shadow.exclusive():
            self._repository.guard.recover()
            self._repository.guard.wait_until_free()
            self._finish_pending()
            self._repository.drop_orphans()
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
        if self._repository.exists(path):
            if not anew:
                self._repository.give_up(digest)  # somebody else was quicker, with the same bytes
                return
            self._cleared.append(path)
        if not self._repository.staged(digest).is_complete():
            raise RepositoryChanged(
                f"cannot use layer {digest}", why="what was staged of it was given up meanwhile"
            )
        self._layers[digest] = NewLayer(digest, tuple(fixups), tuple(layers))

    def replace(self, path: str, content: bytes, *, last: bool = False) -> None:
        """Create or replace a small file; nothing is last in a change that is seen as a whole."""
        self._seen[path] = self._repository.read(path)
        self._files[path] = content

    def symlink(self, path: str, text: str) -> None:
        """Create or replace a symlink."""
        self._seen[path] = self._repository.link_text(path)
        self._links[path] = text

    def remove(self, path: str) -> None:
        """Remove a file, a symlink or a whole tree; what is not there needs no removing."""
        self._removals.append(path)

    def record(self, name: str, what: str, why: str = "") -> None:
        """Say for the history what happens to the image or layer `name`, and why."""
        self._shadow.record(name, what, why)

    def commit(self) -> None:
        """Make it all visible: one call of the server wherever that is possible."""
        assert self._exclusive
        repository = self._repository
        configuration = repository.configuration
        changes = self._changes()
        calls = compile_calls(changes, repository.published_kind, configuration.is_gateway)
        if not calls:
            return
        shadow_was_current = repository.shadow_is_current()
        before = configuration.published()
        rest = pending.plan_rest(calls)
        if rest is not None:
            pending.write(repository.pending, rest)
        with repository.gate.publishing():
            for call in calls:
                self._run(call)
        repository.pending.unlink(missing_ok=True)
        after = configuration.published()
        if after.revision < before.revision + len(calls):
            raise RepositoryError(
                f"cannot publish to {repository.url}",
                why=f"cvmfs_server reported success, but revision {before.revision} became "
                f"{after.revision} and not {before.revision + len(calls)}",
                hint=f"run cvmfs_server check {configuration.name}",
            )
        self._check_visible(changes)
        alone = after.revision == before.revision + len(calls)
        repository.note_shadow(False)
        try:
            self._update_shadow()
        except PathTaken as error:
            _log.warning("the state kept beside %s is not up to date: %s", repository.url, error)
        else:
            repository.note_shadow(shadow_was_current and alone)
        for digest in self._layers:
            repository.staged(digest).forget_blob()

    def _finish_pending(self) -> None:
        """Carry out what a publisher that died between two calls of the server has left."""
        repository = self._repository
        rest = pending.read(repository.pending)
        if rest is None:
            return
        if rest.has_begun(repository.published_kind, repository.link_text):
            with repository.gate.publishing():
                for call in rest.rest:
                    self._run(call)
            repository.note_shadow(False)
        repository.pending.unlink()

    def _changes(self) -> Changes:
        kind = self._repository.published_kind
        gateway = self._repository.configuration.is_gateway
        return Changes(
            tuple(self._layers.values()),
            tuple(self._trees.values()),
            dict(self._files),
            dict(self._links),
            tuple(self._removals),
            tuple(dict.fromkeys(self._cleared)),
            tuple(path for path in skeleton(shards=gateway) if kind(path) is None)
            if self._layers or self._trees or self._files
            else (),
        )

    def _run(self, call: Call) -> None:
        guard = self._repository.guard
        name = self._repository.configuration.name
        if isinstance(call, Edit):
            guard.patiently(lambda: self._edit(call))
            return
        arguments = ["ingest"]
        for path in call.deletions:
            arguments += ["-d", path]
        if not call.additions.has_additions:
            guard.patiently(lambda: guard.server.run([*arguments, name]))
            return
        arguments += ["-t", "-", "-b", call.base or "/", "-k", name]

        guard.patiently(
            lambda: guard.server.run(arguments, lambda write: send(self._repository, call, write))
        )

    def _edit(self, edit: Edit) -> None:
        """Change the mounted tree by hand, in a transaction of the server."""
        configuration = self._repository.configuration
        guard = self._repository.guard
        name, mount = configuration.name, configuration.mount
        if not configuration.is_mounted:
            raise RepositoryError(
                f"cannot change names in {self._repository.url}",
                why=f"they hold characters that cvmfs_server takes only through {mount}, which "
                "is not mounted",
                hint=f"mount it: cvmfs_server mount {name}",
            )
        guard.server.run(["transaction", name])
        if configuration.is_gateway:
            self._check_unchanged(edit)  # but for the rest of a transaction, which was checked
        editing.apply(edit, mount)
        guard.server.run(["publish", name])

    def _check_unchanged(self, edit: Edit) -> None:
        """Under the lease: nobody changed, since we looked, what we are about to replace."""
        view = self._repository.view
        for path in (*edit.files, *edit.links):
            now: object = view.read(path) if path in edit.files else view.link_text(path)
            if path in self._seen and now != self._seen[path]:
                raise RepositoryChanged(
                    f"cannot publish {path}", why="another publisher changed it meanwhile"
                )

    def _check_visible(self, changes: Changes) -> None:
        """What was published is there, and what was removed is not, where we can look."""
        repository = self._repository
        # A gateway's publishers see their mount renewed with their next transaction only.
        if repository.view is not repository.shadow and not repository.configuration.is_gateway:
            require_visible(repository, changes)

    def _update_shadow(self) -> None:
        shadow, transaction = self._repository.shadow, self._shadow
        for path in self._trees:
            root = Merged(Entry("", EntryType.DIRECTORY, 0o755), 0, "")
            transaction.link(path, [root], [], anew=shadow.exists(path))
        for digest in self._layers:
            there = shadow.exists(layout.layer_directory(digest))
            transaction.add_layer(digest, (), (), anew=there)
        for path, content in self._files.items():
            transaction.replace(path, content)
        for path, text in self._links.items():
            transaction.symlink(path, text)
        for path in self._removals:
            transaction.remove(path)
        transaction.commit()
