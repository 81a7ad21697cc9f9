"""Private space inside the repository's filesystem, where content waits for its transaction.

.metadata/.publisher/          mode 0700: readers cannot see into it
    lock, holder.json          the exclusive right to commit, and who has it
    journal.json               a committed transaction that is being carried out
    sessions/<id>/             one process' unfinished work; `<id>.lock` is held while it lives
    sessions/<id>/deleting/    what it has taken from the trash; there already when a disk is full
    layers/<hex>/              finished, verified layers that no transaction has published yet
    trash/                     what was removed or given up, being deleted
    history.jsonl              the record of all transactions
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

import filelock

from publisher.oci.digest import digest_hex
from publisher.repository.disk import (
    make_directories,
    remove_empty_parents,
    remove_tree,
    write_new_file,
)
from publisher.repository.lock import new_lock
from publisher.tree import layout

_log = logging.getLogger(__name__)

JOURNAL = "journal.json"
_PLACES = "places.json"
_DELETING = "deleting"
_LOCK_SUFFIX = ".lock"

FINISHED_LAYER_LIFETIME = 14 * 24 * 3600.0
"""Seconds for which a finished layer of an interrupted run waits to be used."""


class Staging:
    """The staging space of one repository, and this process' session in it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.directory = root / layout.STATE
        self.journal = self.directory / JOURNAL
        self._sessions = self.directory / "sessions"
        self._layers = self.directory / "layers"
        self._trash = self.directory / "trash"
        self._numbers = itertools.count()
        make_directories(self.directory.parent)
        for directory in (self.directory, self._sessions, self._layers, self._trash):
            directory.mkdir(mode=0o700, exist_ok=True)
        self._session, self._alive = self._begin_session()

    def _begin_session(self) -> tuple[Path, filelock.BaseFileLock]:
        while True:
            session = self._sessions / f"{os.getpid()}-{secrets.token_hex(8)}"
            lock = _session_lock(session)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                continue  # a writer looks whether anybody holds it, and will delete it
            if Path(lock.lock_file).exists():
                for directory in (session, session / _DELETING):
                    directory.mkdir(mode=0o700)
                return session, lock
            lock.release()  # a writer deleted it before we held it

    @property
    def session(self) -> Path:
        """This process' unfinished work; those of others are beside it."""
        return self._session

    def new_path(self) -> Path:
        """A path in this session that nothing is at yet."""
        return self._session / str(next(self._numbers))

    def new_trash(self) -> Path:
        """A path to move a removed tree to."""
        return self._trash / secrets.token_hex(16)

    def finished_layer(self, digest: str) -> Path:
        """Where the layer is once it is unpacked and verified."""
        return self._layers / digest_hex(digest)

    def make_places(self, directory: Path, targets: Iterable[str]) -> None:
        """Make the directories that `targets` (paths in the repository) are to be renamed into.

        After its commit point a transaction has nothing but renames to do, which need no space. The
        transaction's own `directory` says what was made, should it never come to that point.
        """
        own = f"{layout.STATE}/"  # the trash is always there
        parents = sorted({t.rpartition("/")[0] for t in targets if not t.startswith(own)})
        try:
            write_new_file(directory / _PLACES, json.dumps(parents).encode(), mode=0o600)
            for parent in parents:
                make_directories(self._root / parent)
        except OSError:
            self.take_back_places(directory)
            raise

    def take_back_places(self, directory: Path) -> None:
        """Remove the directories that were made for a transaction and hold nothing."""
        try:
            parents = json.loads((directory / _PLACES).read_bytes())
        except (FileNotFoundError, ValueError):
            return  # interrupted before anything was made
        if not self.journal.exists():
            for parent in parents:
                remove_empty_parents(self._root / parent / "-", self._root)

    def needs_sweep(self) -> bool:
        """Whether there is a journal to finish, a dead process' session, or trash."""
        sessions = {path.name.removesuffix(_LOCK_SUFFIX) for path in self._sessions.iterdir()}
        return (
            self.journal.exists()
            or bool(sessions - {self._session.name})
            or any(self._trash.iterdir())
        )

    def sweep(self) -> None:
        """Give up what dead processes left and what nobody came for. Only under the writer lock.

        What cannot be given up now is in nobody's way: it is logged, and tried again next time.
        """
        # The clock may step; a layer from the future is as good as a fresh one.
        oldest = time.time() - FINISHED_LAYER_LIFETIME
        for layer in self._layers.iterdir():
            if layer.stat().st_ctime < oldest:
                self.give_up(layer)
        names = {path.name.removesuffix(_LOCK_SUFFIX) for path in self._sessions.iterdir()}
        for name in names - {self._session.name}:
            self._end_if_abandoned(self._sessions / name)

    def discard(self, path: Path) -> None:
        """Delete something in this session, now or, if that fails, when the session is swept."""
        if self.journal.exists():
            return  # a commit that could not be finished may have its sources there
        try:
            remove_tree(path)
        except OSError as error:
            _log.warning("cannot delete %s yet: %s", path, error)

    def empty_trash(self) -> None:
        """Delete what was given up or removed. Takes long, and needs no lock: nobody wants it."""
        for path in self._trash.iterdir():
            own = self._session / _DELETING / path.name
            try:
                path.rename(own)  # two that delete one tree would be in each other's way
                remove_tree(own)
            except FileNotFoundError:
                continue  # another process, or thread, has taken it
            except OSError as error:
                _log.warning("cannot delete %s yet: %s", path, error)

    def give_up(self, path: Path) -> None:
        """Move what nobody needs to the trash; what cannot be moved is logged, and stays."""
        try:
            path.rename(self.new_trash())
        except FileNotFoundError:
            pass  # a session that was never begun, but for its lock
        except OSError as error:
            _log.warning("cannot delete %s yet: %s", path, error)

    def _end_if_abandoned(self, session: Path) -> None:
        lock = _session_lock(session)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            return
        try:
            for directory in session.iterdir() if session.is_dir() else ():
                self.take_back_places(directory)
            self.give_up(session)
            Path(lock.lock_file).unlink(missing_ok=True)
        finally:
            lock.release()

    def close(self) -> None:
        """End this process' session: everything unfinished in it is deleted.

        Unless a commit could not be finished: its sources may be here. The next writer finishes it,
        and sweeps this session away like that of a dead process.
        """
        if self.journal.exists():
            self._alive.release()
            return
        try:
            remove_tree(self._session)
            # The lock goes last, and is held until then.
            Path(self._alive.lock_file).unlink(missing_ok=True)
        except OSError as error:
            # It must not hide how the run itself ended; a later writer deletes what is left.
            _log.warning("cannot delete %s yet: %s", self._session, error)
        finally:
            self._alive.release()


def _session_lock(session: Path) -> filelock.BaseFileLock:
    # Beside the session, so that either can be deleted without the other coming back.
    lock_file = session.with_name(session.name + _LOCK_SUFFIX)
    return new_lock(lock_file, thread_local=False)
