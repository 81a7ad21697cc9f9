"""The directory backend: a published tree in a plain directory, exported read-only to others."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from publisher.durations import DEFAULT_WAIT
from publisher.entry import EntryType
from publisher.repository import DiskFull, RepositoryError
from publisher.repository.damaged import read_damaged
from publisher.repository.directory.layer_places import find_layer, layer_gone
from publisher.repository.directory.opening import check_readable, is_new, prepare
from publisher.repository.directory.survey import FoundOnDisk, type_of, walk_tree
from publisher.repository.disk import NotAFile, free_bytes, open_file
from publisher.tree import layout
from publisher.tree.history import Record
from publisher.tree.layout import RepositoryURL
from publisher.tree.record import InvalidRecord

if TYPE_CHECKING:  # what writes is loaded with the first transaction: most commands only read
    from publisher.repository.directory.layer_stage import DirectoryLayerStage
    from publisher.repository.directory.linker import Link
    from publisher.repository.directory.staging import Staging
    from publisher.repository.directory.transaction import DirectoryTransaction
    from publisher.repository.directory.workspace import Workspace
    from publisher.repository.lock import WriterLock

_PIECE = 1 << 20


class DirectoryRepository:
    """A published tree in the directory that `url` names.

    Args:
        url: The directory, with a relative or absolute path.
        writable: Prepare it for transactions. A directory that holds something else than a
            published tree is refused.
        may_be_new: Accept an empty or missing directory: to write, it is created unless its parent
            is missing too; to read, a first publication would begin it. Without it, a mistyped or
            unmounted path is an error.
        wait: How many seconds to wait for another writer.
        on_wait: Called once, with a message for the user, when waiting begins.
        stop: Ends the waiting once it is set.
        link: Links large flat images in another process; by default this process does.

    Raises:
        RepositoryError: The directory cannot be used in this way.
    """

    def __init__(
        self,
        url: RepositoryURL,
        *,
        writable: bool = False,
        may_be_new: bool = False,
        wait: float = DEFAULT_WAIT,
        on_wait: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
        link: Link | None = None,
    ) -> None:
        self.url = url
        # Fixed once, so that the repository stays the same if the working directory changes.
        self.root = Path(url.location).absolute()
        self._workspace: Workspace | None = None
        if not (may_be_new and (writable or is_new(self.root))):
            check_readable(self.root)
        if writable:
            from publisher.repository.directory.workspace import Workspace

            self._workspace = Workspace(self.root, prepare(self.root), wait, on_wait, stop, link)
            self._workspace.recover()

    @cached_property
    def keeps_xattrs(self) -> bool:
        """Whether directories of layer trees can be marked as opaque by an attribute."""
        from publisher.layers.opaque import keeps_opaque

        return keeps_opaque(self.root)

    @property
    def local_root(self) -> Path:
        """The directory of the repository."""
        return self.root

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a small file; None if it is missing.

        Raises:
            InvalidRecord: This user may not read it, or it is not a file.
        """
        place = os.path.join(self.root, path)
        try:
            with open_file(place) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except NotAFile as error:
            why = f"it is {error.found}, not a file"
            raise InvalidRecord(path, why=why, found=error.found) from error
        except PermissionError as error:
            raise _closed(path, place) from error

    def content(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file of any size, in pieces."""
        with open_file(self.root / path) as file:
            while piece := file.read(_PIECE):
                yield piece

    def link_text(self, path: str) -> str | None:
        """Return the text of a symlink; None if it is missing, or not a symlink.

        Raises:
            InvalidRecord: This user may not look into the directory above it.
        """
        place = os.path.join(self.root, path)
        try:
            return os.readlink(place)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise _closed(path, place) from error
        except OSError:
            if self.exists(path):  # it is not a symlink
                return None
            raise

    def exists(self, path: str) -> bool:
        """Return whether `path` exists. Symlinks are not followed: a dangling one exists."""
        return os.path.lexists(os.path.join(self.root, path))

    def kind(self, path: str) -> EntryType | None:
        """Return the type of `path`, without following a link there; None if it is missing."""
        try:
            return type_of((self.root / path).lstat())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def identity(self, path: str) -> tuple[int, int] | None:
        """Return device and inode of `path`; None if they cannot be determined."""
        try:
            status = (self.root / path).lstat()
        except OSError:  # missing, or longer than a path may be
            return None
        return status.st_dev, status.st_ino

    def children(self, path: str) -> list[str]:
        """Return the names in the directory `path`, sorted; an empty list if it is missing."""
        try:
            return sorted(os.listdir(self.root / path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def names(self) -> Iterator[str]:
        """Yield every published image's name, sorted; and directories that may not be listed.

        Raises PermissionError for one that may be searched, but not listed: no manifest would be
        found in it, as if it had no images.
        """
        top = os.path.join(self.root, layout.METADATA)
        closed: list[str] = []

        def note(error: OSError) -> None:
            path = os.fsdecode(error.filename)
            if isinstance(error, PermissionError) and path != top and not _is_searchable(path):
                closed.append(path)
            elif not isinstance(error, FileNotFoundError):  # removed while it was listed
                raise error

        for here, subdirectories, files in os.walk(top, onerror=note):
            if here == top:
                subdirectories[:] = [n for n in subdirectories if not layout.is_hidden(n)]
            subdirectories.sort()
            yield from _taken(closed, top)
            if layout.MANIFEST_FILE in (*files, *subdirectories):
                yield here[len(top) + 1 :] or "."
        yield from _taken(closed, top)

    def walk(self, path: str) -> Iterator[FoundOnDisk]:
        """Yield all entries of the tree at `path`, its root (as "") first, in index order."""
        return walk_tree(self.root / path)

    def unfinished(self) -> bool:
        """Return whether a committed transaction is unfinished, and no writer is finishing it.

        Raises:
            RepositoryError: It cannot be finished, since its journal is damaged.
        """
        from publisher.repository.directory import journal
        from publisher.repository.directory.staging import JOURNAL
        from publisher.repository.lock import is_writing

        state = self.root / layout.STATE
        try:
            return not is_writing(state) and journal.check(state / JOURNAL)
        except PermissionError:
            return False  # other users cannot read the state directory

    def history(self, damaged: Callable[[str], None] | None = None) -> Iterator[Record]:
        """Yield the records of past transactions, the latest first, as far as they are kept."""
        from publisher.repository.history import History

        history = History(self.root / layout.STATE)
        try:
            yield from history.read(damaged) if damaged else history.read()
        except PermissionError as error:
            raise RepositoryError(
                f"cannot read the history of {self.url}",
                why=f"{error.filename}: {error.strerror}",
                hint="run this command as the user who publishes",
            ) from error

    def free_space(self) -> int:
        """Return how many bytes this user can still store here."""
        return free_bytes(self.root)

    def reserve_space(
        self, layers: Mapping[str, int], keep_waiting: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Reserve nothing: layers are unpacked on the file system of the repository."""
        return nullcontext()

    def discard_staged(self, keep: Collection[str]) -> int:
        """Delete the staged layers, except those in `keep`, unless others may need them."""
        with self.lock.hold("freeing space", wait=False) as held:
            discarded = self.staging.discard_finished(keep) if held else 0
        self.staging.empty_trash()
        return discarded

    def has_layer(self, digest: str) -> bool:
        """Return whether the layer is published, or staged by an earlier run."""
        return self._find_layer(digest) is not None

    def open_index(self, digest: str) -> BinaryIO:
        """Return the index of a published or staged layer; RepositoryChanged if it is neither."""
        for _ in range(2):  # a commit between finding and opening moves the layer once
            found = self._find_layer(digest)
            if found is None:
                break
            try:
                return open_file(found / layout.LAYER_INDEX)
            except FileNotFoundError:
                continue
        raise layer_gone(digest)

    def has_tar_split(self, digest: str) -> bool:
        """Return whether a published or staged layer has tar-split data."""
        found = self._find_layer(digest)
        return found is not None and (found / layout.LAYER_TAR_SPLIT).exists()

    def layer_packages(self, digest: str) -> bytes | None:
        """Return the record of a published or staged layer's packages; None without one."""
        if self._workspace is not None:
            staged = self.staging.finished_layer(digest) / layout.LAYER_PACKAGES
            with suppress(FileNotFoundError), open_file(staged) as file:
                return file.read()
        return read_damaged(self, layout.layer_packages(digest))

    @contextmanager
    def stage_layer(self, digest: str) -> Iterator[DirectoryLayerStage]:
        """Begin to unpack a layer, which is discarded unless `finish` is called."""
        from publisher.repository.directory.layer_stage import DirectoryLayerStage

        directory = self.staging.new_path()
        finished = self.staging.finished_layer(digest)
        try:
            with self._noting_a_full_disk():
                yield DirectoryLayerStage(directory, finished, f"layer {digest}")
        finally:
            self.staging.discard(directory)

    @contextmanager
    def transaction(self, purpose: str) -> Iterator[DirectoryTransaction]:
        """Begin a change; `purpose` is shown to processes that wait ("ingest of …")."""
        from publisher.repository.directory.transaction import DirectoryTransaction

        directory = self.staging.new_path()
        directory.mkdir(mode=0o700)
        try:
            with self._noting_a_full_disk():
                yield DirectoryTransaction(self._writable, directory, purpose)
        finally:
            self.staging.discard(directory)

    @contextmanager
    def _noting_a_full_disk(self) -> Iterator[None]:
        """Convert the error of a full disk to DiskFull, with what is free at that moment."""
        try:
            yield
        except OSError as error:
            if not DiskFull.is_meant_by(error):
                raise
            status = os.statvfs(self.root)
            inodes = status.f_ffree if status.f_files else None
            raise DiskFull(error, self.free_space(), inodes) from error

    def close(self) -> None:
        """Delete the private staging space. Finished layers stay for the next run."""
        if self._workspace is not None:
            self._workspace.staging.close()

    @property
    def staging(self) -> Staging:
        """The private space that transactions are prepared in."""
        return self._writable.staging

    @property
    def lock(self) -> WriterLock:
        """The right to change this repository."""
        return self._writable.lock

    @property
    def _writable(self) -> Workspace:
        assert self._workspace is not None, "the repository is open for reading only"
        return self._workspace

    def _find_layer(self, digest: str) -> Path | None:
        staged = self.staging.finished_layer(digest) if self._workspace is not None else None
        return find_layer(self.root, digest, staged)


def _is_searchable(directory: str) -> bool:
    try:
        os.stat(os.path.join(directory, "."))
    except PermissionError:
        return False
    return True


def _taken(paths: list[str], top: str) -> Iterator[str]:
    """Take the paths out of the list, and yield them relative to `top`."""
    while paths:
        yield paths.pop(0)[len(top) + 1 :]


def _closed(path: str, place: str) -> InvalidRecord:
    return InvalidRecord(path, why="permission denied", hint=_permission_hint(place))


def _permission_hint(place: str) -> str:
    """Return what makes a file readable: it, or a directory above it, is not."""
    import shlex

    closed = (path for path in reversed(Path(place).parents) if not os.access(path, os.X_OK))
    above = next(closed, None)
    if above is None:
        return f"chmod a+r {shlex.quote(place)}"
    return f"chmod a+rx {shlex.quote(str(above))}"
