"""Private space in the repository's file system, where content is prepared for its transaction.

.metadata/.publisher/          mode 0700: readers cannot enter it
    lock, holder.json          the exclusive right to commit, and the process that has it
    journal.json               a committed transaction that is being executed
    sessions/<id>/             unfinished work of one process, which holds `<id>.lock`
    sessions/<id>/deleting/    what it deletes; made in advance, since the disk may be full then
    layers/<hex>/              finished, verified layers that are not published yet
    trash/                     what was removed or discarded, until it is deleted
    history.jsonl              the record of all transactions
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from collections.abc import Collection, Iterable
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
_PARENTS = "places.json"
_DELETING = "deleting"
_LOCK_SUFFIX = ".lock"

FINISHED_LAYER_LIFETIME = 14 * 24 * 3600.0
"""How many seconds a finished layer of an interrupted run is kept for the next one."""


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
            session = self._sessions / f"{os.getpid()}-{os.urandom(8).hex()}"
            lock = _session_lock(session)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                continue  # a writer is checking whether it is held, and will delete it
            if Path(lock.lock_file).exists():
                for directory in (session, session / _DELETING):
                    directory.mkdir(mode=0o700)
                return session, lock
            lock.release()  # a writer deleted it before this process held it

    @property
    def session(self) -> Path:
        """The directory of this process' unfinished work."""
        return self._session

    def new_path(self) -> Path:
        """Return an unused path in this session."""
        return self._session / str(next(self._numbers))

    def new_trash(self) -> Path:
        """Return an unused path in the trash."""
        return self._trash / os.urandom(16).hex()

    def finished_layer(self, digest: str) -> Path:
        """Return the path of the layer once it is unpacked and verified."""
        return self._layers / digest_hex(digest)

    def make_parents(self, directory: Path, targets: Iterable[str]) -> None:
        """Make the directories that `targets` (paths in the repository) will be renamed into.

        After its commit point a transaction only has to rename, which needs no space. The list of
        directories is kept in the transaction's own `directory`, so that they are removed if the
        commit point is never reached.
        """
        own = f"{layout.STATE}/"  # the trash exists
        parents = sorted({t.rpartition("/")[0] for t in targets if not t.startswith(own)})
        try:
            write_new_file(directory / _PARENTS, json.dumps(parents).encode(), mode=0o600)
            for parent in parents:
                make_directories(self._root / parent)
        except OSError:
            self.remove_unused_parents(directory)
            raise

    def remove_unused_parents(self, directory: Path) -> None:
        """Remove the directories that were made for a transaction and are still empty."""
        try:
            parents = _parents((directory / _PARENTS).read_bytes())
        except (FileNotFoundError, ValueError):
            return  # interrupted before anything was made
        if not self.journal.exists():
            for parent in parents:
                remove_empty_parents(self._root / parent / "-", self._root)

    def needs_sweep(self) -> bool:
        """Return whether a journal, the session of an ended process, or trash exists."""
        return self.journal.exists() or bool(self._other_sessions()) or any(self._trash.iterdir())

    def _other_sessions(self) -> set[str]:
        names = {path.name.removesuffix(_LOCK_SUFFIX) for path in self._sessions.iterdir()}
        return names - {self._session.name}

    def sweep(self) -> None:
        """Discard the work of ended processes, and old finished layers. Needs the writer lock.

        A failure is logged, and the next sweep tries again.
        """
        # The clock may have been changed: a layer from the future counts as new.
        oldest = time.time() - FINISHED_LAYER_LIFETIME
        for layer in self._layers.iterdir():
            if layer.stat().st_ctime < oldest:
                self.move_to_trash(layer)
        for name in self._other_sessions():
            self._end_if_abandoned(self._sessions / name)

    def discard_finished(self, keep: Collection[str]) -> int:
        """Discard the finished layers, and return their number. Needs the writer lock.

        Nothing is discarded while another process has a session, or a commit is not finished: they
        may need any layer.

        Args:
            keep: The digests of layers to keep.
        """
        self.sweep()
        if self._other_sessions() or self.journal.exists():
            return 0
        kept = {digest_hex(digest) for digest in keep}
        unused = [path for path in self._layers.iterdir() if path.name not in kept]
        for path in unused:
            self.move_to_trash(path)
        return len(unused)

    def discard(self, path: Path) -> None:
        """Delete something in this session, now or, if that fails, when the session is swept."""
        if self._has_sources_in(path):
            return
        try:
            remove_tree(path)
        except OSError as error:
            _log.warning("cannot delete %s yet: %s", path, error)

    def _has_sources_in(self, path: Path) -> bool:
        """Return whether a commit that is not finished may move something out of `path`.

        The commit of another image, in this moment, does not prevent that space is freed.
        """
        try:
            data = self.journal.read_bytes()
        except FileNotFoundError:
            return False
        except OSError:
            return True
        is_damaged = not data.startswith(b"{")
        return is_damaged or f"{path.parent.name}/{path.name}/".encode() in data

    def empty_trash(self) -> None:
        """Delete what is in the trash. This may take long, and needs no lock."""
        for path in self._trash.iterdir():
            own = self._session / _DELETING / path.name
            try:
                path.rename(own)  # exactly one process deletes each tree
                remove_tree(own)
            except FileNotFoundError:
                continue  # another process, or thread, has taken it
            except OSError as error:
                _log.warning("cannot delete %s yet: %s", path, error)

    def move_to_trash(self, path: Path) -> None:
        """Move what is not needed to the trash; what cannot be moved is logged, and stays."""
        try:
            path.rename(self.new_trash())
        except FileNotFoundError:
            pass  # a session of which only the lock was ever made
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
                self.remove_unused_parents(directory)
            self.move_to_trash(session)
            Path(lock.lock_file).unlink(missing_ok=True)
        finally:
            lock.release()

    def close(self) -> None:
        """End this process' session: everything unfinished in it is deleted.

        If a commit could not be finished, its sources may be here. Then the session stays; the next
        writer finishes the commit, and discards the session like that of an ended process.
        """
        if self.journal.exists():
            self._alive.release()
            return
        try:
            remove_tree(self._session)
            # The lock is deleted last, and is held until then.
            Path(self._alive.lock_file).unlink(missing_ok=True)
        except OSError as error:
            # The result of the run itself counts; a later writer deletes what is left.
            _log.warning("cannot delete %s yet: %s", self._session, error)
        finally:
            self._alive.release()


def _session_lock(session: Path) -> filelock.BaseFileLock:
    # Beside the session, so that deleting one does not create the other again.
    lock_file = session.with_name(session.name + _LOCK_SUFFIX)
    return new_lock(lock_file, thread_local=False)


def _parents(data: bytes) -> list[str]:
    """Return the list that `make_parents` wrote; raise ValueError for anything else.

    Directories are removed by it: none of its paths may lead out of the repository.
    """
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(value, list) or not all(isinstance(path, str) for path in value):
        raise ValueError("not a list of paths")
    if any(path.startswith("/") or ".." in path.split("/") or "\0" in path for path in value):
        raise ValueError("a path leads out of the repository")
    return value
