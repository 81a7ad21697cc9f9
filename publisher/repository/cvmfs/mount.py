"""Read the published tree of a CVMFS repository on this machine.

The tree is read through the server's read-only mount below the spool, not through the union mount
at /cvmfs/REPO. The union mount is an overlayfs: it lists whiteouts of the repository but does not
find them, it shows changes of an open transaction, and the server refuses to publish while a
process has a file below it open. If nothing is mounted, the metadata mirror is read instead.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, cast

from publisher.entry import EntryType
from publisher.repository import Found, LayerChanged, NothingPublished, RepositoryError
from publisher.repository.cvmfs.configuration import Configuration
from publisher.repository.cvmfs.mirror import Mirror
from publisher.repository.directory.repository import DirectoryRepository
from publisher.repository.directory.survey import type_of
from publisher.repository.disk import open_file
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL

_INDEX_IN_MEMORY = 2**20
_DEAD_MOUNT = (errno.ENOTCONN, errno.EIO, errno.ESTALE)
"""Errors of a mount whose client process has ended or cannot reach its storage."""

_FILE_OF_MKFS = "new_repository"
"""The file that `cvmfs_server mkfs` creates in every repository."""


class ReadersWriterLock:
    """A lock that many reading threads share, or one publishing thread holds alone.

    At the end of each publication the server unmounts the tree, which fails while one of its files
    is open. The reading threads of this process therefore wait. A waiting publishing thread has
    precedence over new readers.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._publishing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock together with other readers, for a short time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._publishing)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._publishing)
            self._publishing = True
            self._changed.wait_for(lambda: self._readers == 0)
        try:
            yield
        finally:
            with self._changed:
                self._publishing = False
                self._changed.notify_all()


class PublishedTree:
    """Reads one published tree. Its methods correspond to those of `Repository`."""

    def __init__(self, url: RepositoryURL, configuration: Configuration, mirror: Mirror) -> None:
        self.lock = ReadersWriterLock()
        self._url = url
        self._configuration = configuration
        self._mirror = mirror
        self._mounted: DirectoryRepository | None = None

    @property
    def view(self) -> DirectoryRepository:
        """The mounted tree, or the mirror if nothing is mounted."""
        place = self._configuration.mount
        try:
            if self._mounted is None and (place / layout.METADATA).is_dir():
                self._mounted = DirectoryRepository(RepositoryURL("dir", str(place)))
        except OSError as error:
            raise self._unreadable(error) from error
        if self._mounted is not None:
            return self._mounted
        if self._mirror.exists:
            return self._mirror.tree
        raise NothingPublished(
            f"cannot read {self._url}",
            why=f"nothing is published at {place}",
            hint=f"mount it: cvmfs_server mount {self._configuration.name}; or publish into it",
        )

    @property
    def is_mounted(self) -> bool:
        """Whether `view` is the mounted tree."""
        return not self._mirror.exists or self.view is not self._mirror.tree

    def read(self, path: str) -> bytes | None:
        """Return a small file's bytes; None if there is no such file."""
        with self._reading():
            return self.view.read(path)

    def link_text(self, path: str) -> str | None:
        """Return a symlink's text; None if there is no such symlink."""
        with self._reading():
            return self.view.link_text(path)

    def exists(self, path: str) -> bool:
        """Return whether `path` exists; symlinks are not followed."""
        with self._reading():
            try:
                (self.view.root / path).lstat()
            except OSError as error:
                if error.errno in _DEAD_MOUNT:
                    raise  # the error of the mount does not mean that the file is missing
                return False
            return True

    def kind(self, path: str) -> EntryType | None:
        """Return the type of the entry at `path`; symlinks are not followed."""
        with self._reading():
            return self.view.kind(path)

    def children(self, path: str) -> list[str]:
        """Return the sorted names in the directory `path`, without the server's own files."""
        with self._reading():
            names = self.view.children(path)
        return [n for n in names if not n.startswith(".cvmfs") and (path or n != _FILE_OF_MKFS)]

    def names(self) -> list[str]:
        """Return every published image's name, sorted."""
        with self._reading():
            return list(self.view.names())

    def content(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file; raise RepositoryError if nothing is mounted.

        No publication of this process begins while the iterator is in use.
        """
        self._require_mount(path)
        with self._reading():
            yield from self.view.content(path)

    def walk(self, path: str) -> Iterator[Found]:
        """Yield all entries of the tree at `path`; raise RepositoryError if it is not mounted."""
        self._require_mount(path)
        try:
            for found in self.view.walk(path):
                if not found.entry.path.rpartition("/")[2].startswith(".cvmfs"):
                    yield found
        except OSError as error:
            if error.errno not in _DEAD_MOUNT:
                raise
            raise self._unreadable(error) from error

    def published_kind(self, path: str) -> EntryType | None:
        """Return the type of the published entry at `path`.

        Unlike `kind`, this takes no lock: the publishing thread, which holds it, calls it.
        """
        return self.published_kinds()(path)

    def published_kinds(self) -> Callable[[str], EntryType | None]:
        """Return `published_kind` for the time of one server command.

        It opens nothing in the mount: the server refuses to publish while a file or directory of it
        is open, even for a moment.
        """
        if self._configuration.is_mounted:
            return partial(_kind_in, self._configuration.mount)
        return self._mirrored_kind

    def _mirrored_kind(self, path: str) -> EntryType | None:
        # In the mirror this directory exists always, for its own state. Sending it again is
        # harmless.
        return None if path == layout.METADATA else self._mirror.tree.kind(path)

    def open_index(self, digest: str) -> BinaryIO:
        """Open a copy of the index of a published or staged layer.

        No file of the mounted repository may stay open, hence the copy.

        Raises:
            LayerChanged: The layer is neither published nor staged.
        """
        copy = cast(IO[bytes], tempfile.SpooledTemporaryFile(_INDEX_IN_MEMORY))  # noqa: SIM115
        try:
            with self._reading():
                place = self.view.root / layout.layer_index(digest)
                if not place.exists() and self._mirror.exists:
                    place = self._mirror.staged(digest).index
                with open_file(place) as file:
                    shutil.copyfileobj(file, copy)
        except FileNotFoundError as error:
            copy.close()
            raise LayerChanged(
                digest,
                why="it was removed while this image was being prepared",
            ) from error
        copy.seek(0)
        return cast(BinaryIO, copy)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Hold the lock as a reader; raise RepositoryError for errors of the mount."""
        with self.lock.reading():
            try:
                yield
            except OSError as error:
                if error.errno not in _DEAD_MOUNT:
                    raise
                raise self._unreadable(error) from error

    def _require_mount(self, path: str) -> None:
        if not self.is_mounted:
            raise RepositoryError(
                f"cannot read the content of {path} in {self._url}",
                why="the repository is not mounted on this machine",
                hint=f"mount it: cvmfs_server mount {self._configuration.name}",
            )

    def _unreadable(self, error: OSError) -> RepositoryError:
        name = self._configuration.name
        return RepositoryError(
            f"cannot read {self._url}",
            why=f"{error.filename or self._configuration.mount}: {error.strerror}",
            hint=f"mount it again: cvmfs_server umount {name}; cvmfs_server mount {name}",
        )


def _kind_in(mount: Path, path: str) -> EntryType | None:
    try:
        return type_of((mount / path).lstat())
    except (FileNotFoundError, NotADirectoryError):
        return None
