"""Carrying out the server calls of a transaction, and those that a dead publisher has left."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from publisher.repository import RepositoryError
from publisher.repository.cvmfs import editing, pending
from publisher.repository.cvmfs.changes import Call, Edit, Ingest
from publisher.repository.cvmfs.sending import send
from publisher.tree import layout

if TYPE_CHECKING:
    from publisher.repository.cvmfs.repository import CvmfsRepository

_RENEWAL = f"{layout.METADATA}/.renewal"
"""A path that nobody publishes: its lease is in nobody's way."""


def carry_out(repository: CvmfsRepository, call: Call, check: Callable[[], None]) -> None:
    """Do `call`, waiting for whoever is in its way.

    `check` is called before changes by hand: once the transaction is open, and through a gateway
    nobody else changes anything any more.
    """
    if isinstance(call, Edit):
        repository.guard.patiently(lambda: _edit(repository, call, check))
    else:
        _renew(repository)  # links may lead to what the call before has sent
        repository.guard.patiently(lambda: _ingest(repository, call))


def finish_pending(repository: CvmfsRepository) -> None:
    """Carry out what a publisher that died between two calls of the server has left."""
    left = pending.read(repository.pending)
    if left is None:
        return
    if left.is_decided(repository):
        with repository.gate.publishing():
            for call in left.rest:
                carry_out(repository, call, lambda: None)
        repository.note_shadow(False)
        for digest in left.layers:
            repository.give_up(digest)
    repository.pending.unlink()


def open_by_hand(repository: CvmfsRepository) -> None:
    """Open a transaction of the server, which shows the present state in the mounted tree."""
    configuration = repository.configuration
    if not configuration.is_mounted:
        raise RepositoryError(
            f"cannot change names in {repository.url}",
            why="they hold characters that cvmfs_server takes only through "
            f"{configuration.mount}, which is not mounted",
            hint=f"mount it: cvmfs_server mount {configuration.name}",
        )
    repository.guard.server.run(["transaction", configuration.name])


def publish_by_hand(repository: CvmfsRepository, edit: Edit) -> None:
    """Change the mounted tree, in the transaction that is open, and publish it."""
    configuration = repository.configuration
    editing.apply(edit, configuration.mount)
    repository.guard.server.run(["publish", configuration.name])


def renew(repository: CvmfsRepository) -> None:
    """Let the mounted tree of a gateway's publisher show what others have published since.

    The server does that with each transaction, and with nothing else.
    """
    with repository.gate.publishing():
        _renew(repository)


def _renew(repository: CvmfsRepository) -> None:
    configuration = repository.configuration
    if not configuration.is_gateway or not configuration.is_mounted:
        return
    if configuration.mounted_hash() == configuration.published().root_hash:
        return
    name = configuration.name
    # A lease needs its parent to be there.
    has_metadata = repository.published_kind(layout.METADATA) is not None
    leased = f"{name}/{_RENEWAL}" if has_metadata else name

    def look() -> None:
        repository.guard.server.run(["transaction", leased])
        repository.guard.server.run(["abort", "-f", name])

    repository.guard.patiently(look)


def _edit(repository: CvmfsRepository, edit: Edit, check: Callable[[], None]) -> None:
    open_by_hand(repository)
    check()
    publish_by_hand(repository, edit)


def _ingest(repository: CvmfsRepository, call: Ingest) -> None:
    name = repository.configuration.name
    arguments = ["ingest"]
    for path in call.deletions:
        arguments += ["-d", path]
    if not call.additions.has_additions:
        repository.guard.server.run([*arguments, name])
        return
    arguments += ["-t", "-", "-b", call.base or "/", "-k", name]
    repository.guard.server.run(arguments, lambda write: send(repository, call, write))
