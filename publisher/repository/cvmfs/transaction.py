"""The transaction of the CVMFS backend: collected, compiled into server calls, sent, verified."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.entry import Entry, EntryType, Fixup, Generated, Merged
from publisher.repository import PathTaken, RepositoryChanged, RepositoryError
from publisher.repository.cvmfs import pending
from publisher.repository.cvmfs.carrying import carry_out, open_by_hand, publish_by_hand, renew
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
from publisher.repository.cvmfs.visible import require_visible
from publisher.repository.directory.transaction import DirectoryTransaction
from publisher.tree import layout

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
        self._has_lease = False
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
        """Keep every other writer out, having finished or discarded what a dead one left.

        Other publishers of a gateway's repository can only be kept out by its lease. Who sends
        content would keep it for too long, and looks once more under it, at the end; all else is
        decided under it.
        """
        with self._shadow.exclusive():
            self._repository.settle()
            self._exclusive = True
            try:
                self._take_lease()
                yield
            finally:
                self._exclusive = False
                self._give_lease_back()

    def _take_lease(self) -> None:
        renew(self._repository)
        if self._repository.configuration.is_gateway and not self._trees:
            guard = self._repository.guard
            guard.patiently(lambda: open_by_hand(self._repository), stays_open=True)
            self._has_lease = True

    def _give_lease_back(self) -> None:
        if self._has_lease:
            self._has_lease = False
            self._repository.guard.recover()

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
        left = pending.plan(calls, configuration.is_gateway)
        pending.write(repository.pending, left)
        with repository.gate.publishing():
            self._carry_out(calls)
        if left.rest:
            pending.write(repository.pending, replace(left, rest=()))
        after = configuration.published()
        if after.revision < before.revision + len(calls):
            raise RepositoryError(
                f"cannot publish to {repository.url}",
                why=f"cvmfs_server reported success, but revision {before.revision} became "
                f"{after.revision} and not {before.revision + len(calls)}",
                hint=f"run cvmfs_server check {configuration.name}",
            )
        # A gateway's publishers see their mount renewed with their next transaction only: there
        # content was looked for before anything led to it.
        if repository.view is not repository.shadow and not configuration.is_gateway:
            require_visible(repository, repository, changes)
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
        repository.pending.unlink()

    def _carry_out(self, calls: Sequence[Call]) -> None:
        match calls:
            case [Edit() as edit] if self._has_lease:
                publish_by_hand(self._repository, edit)
                self._repository.guard.forget()
                self._has_lease = False
            case _:
                self._give_lease_back()
                for call in calls:
                    carry_out(self._repository, call, self._check_under_lease)

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

    def _check_under_lease(self) -> None:
        """At a gateway: what leads to content may be published, since the content is there.

        And nobody changed, since we looked, what we are about to replace.
        """
        if not self._repository.configuration.is_gateway:
            return
        content = Changes(tuple(self._layers.values()), tuple(self._trees.values()))
        require_visible(self._repository, self._repository.view, content)
        view = self._repository.view
        for path in (*self._files, *self._links):
            now: object = view.read(path) if path in self._files else view.link_text(path)
            if path in self._seen and now != self._seen[path]:
                raise RepositoryChanged(
                    f"cannot publish {path}", why="another publisher changed it meanwhile"
                )

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
