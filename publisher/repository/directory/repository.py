"""The directory backend: a published tree in a plain directory, exported read-only to others."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from publisher.entry import EntryType
from publisher.repository import RepositoryChanged, RepositoryError
from publisher.repository.directory import journal
from publisher.repository.directory.staging import JOURNAL, Staging
from publisher.repository.directory.survey import FoundOnDisk, type_of, walk_tree
from publisher.repository.directory.transaction import DirectoryTransaction
from publisher.repository.directory.tree_writer import TreeWriter
from publisher.repository.disk import (
    PUBLIC_DIRECTORY_MODE,
    make_directories,
    sync_filesystem,
)
from publisher.repository.history import History
from publisher.repository.lock import WriterLock, is_writing
from publisher.tree import layout
from publisher.tree.history import Record
from publisher.tree.layout import RepositoryURL

DEFAULT_WAIT = 600.0
"""Seconds to wait for another writer. Commits are short; only a collection may hold on longer."""


class DirectoryRepository:
    """A published tree in the directory that `url` names.

    `writable` prepares it for transactions: the directory is created if only itself is missing, and
    refused if it holds something that is not a published tree. For reading, `may_be_new` accepts a
    directory that publishing would begin: there is nothing in it. `wait` is how many seconds to
    wait for another writer; `on_wait` is told, in words, when that begins.
    """

    keeps_xattrs = True

    def __init__(
        self,
        url: RepositoryURL,
        *,
        writable: bool = False,
        may_be_new: bool = False,
        wait: float = DEFAULT_WAIT,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.url = url
        # Fixed once, so that the repository stays the same wherever the process goes later.
        self.root = Path(url.location).absolute()
        if writable:
            self._staging: Staging | None = _prepare(self.root)
            self.lock = WriterLock(self._staging.directory, wait, on_wait)
            self._recover()
        else:
            if not (may_be_new and _is_new(self.root)):
                _check_readable(self.root)
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

    def kind(self, path: str) -> EntryType | None:
        """What is at `path`, without following a link there; None where nothing is."""
        try:
            return type_of((self.root / path).lstat())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def identity(self, path: str) -> tuple[int, int] | None:
        """Device and inode of what is at `path`; None where that cannot be told."""
        try:
            status = (self.root / path).lstat()
        except OSError:  # nothing there, or a path that is too long to be asked for at once
            return None
        return status.st_dev, status.st_ino

    def children(self, path: str) -> list[str]:
        """The names in the directory `path`, sorted; none where there is no such directory."""
        try:
            return sorted(os.listdir(self.root / path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def names(self) -> Iterator[str]:
        """Every published image's name, sorted."""
        top = self.root / layout.METADATA
        for directory, subdirectories, files in os.walk(top, onerror=_raise_unless_gone):
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

    def walk(self, path: str) -> Iterator[FoundOnDisk]:
        """Everything in the tree at `path`, itself first (as ""), sorted like a layer index."""
        return walk_tree(self.root / path)

    def unfinished(self) -> bool:
        """Whether a committed transaction waits to be carried out, and nobody is at it."""
        state = self.root / layout.STATE
        try:
            return (state / JOURNAL).exists() and not is_writing(state)
        except PermissionError:
            return False  # that is for its publisher to know

    def history(self) -> Iterator[Record]:
        """What transactions did here, the latest first, as far back as it is kept."""
        try:
            yield from History(self.root / layout.STATE).read()
        except PermissionError as error:
            raise RepositoryError(
                f"cannot read the history of {self.url}",
                why=f"{error.filename}: {error.strerror}",
                hint="ask as the user who publishes",
            ) from error

    def free_space(self) -> int | None:
        """How many bytes can still be stored here by who we are."""
        status = os.statvfs(self.root)
        blocks = status.f_bfree if os.geteuid() == 0 else status.f_bavail
        return blocks * status.f_frsize

    def room_for(
        self, layers: Mapping[str, int], keep_waiting: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Nothing to wait for: layers are unpacked where they will be published."""
        return nullcontext()

    def has_layer(self, digest: str) -> bool:
        """Whether the layer need not be fetched: it is published, or staged by an earlier run."""
        return self._find_layer(digest) is not None

    def open_index(self, digest: str) -> BinaryIO:
        """The index of a published or staged layer; RepositoryChanged where there is neither."""
        try:
            return (self.locate_layer(digest) / layout.LAYER_INDEX).open("rb")
        except FileNotFoundError:
            pass  # published between two looks, which moves it, or collected
        try:
            return (self.locate_layer(digest) / layout.LAYER_INDEX).open("rb")
        except FileNotFoundError as error:
            raise _gone(digest) from error

    @contextmanager
    def stage_layer(self, digest: str) -> Iterator[DirectoryLayerStage]:
        """Begin to unpack a layer; without `finish` nothing of it is kept."""
        staging = self.staging
        directory = staging.new_path()
        stage = DirectoryLayerStage(directory, staging.finished_layer(digest))
        try:
            yield stage
        finally:
            stage.close()
            staging.discard(directory)

    @contextmanager
    def transaction(self, purpose: str) -> Iterator[DirectoryTransaction]:
        """Begin a change; `purpose` tells others what goes on ("ingest of …")."""
        directory = self.staging.new_path()
        directory.mkdir(mode=0o700)
        try:
            yield DirectoryTransaction(self, directory, purpose)
        finally:
            self.staging.discard(directory)

    def close(self) -> None:
        """Let go of private staging space. What is finished stays for the next run."""
        if self._staging is not None:
            self._staging.close()

    @property
    def staging(self) -> Staging:
        """The private space that transactions are prepared in."""
        assert self._staging is not None, "the repository was opened for reading only"
        return self._staging

    def _find_layer(self, digest: str) -> Path | None:
        published = self.root / layout.layer_directory(digest)
        places = [published]
        if self._staging is not None:
            # It may be published between two looks, which moves it from there to here.
            places += [self._staging.finished_layer(digest), published]
        return next((p for p in places if (p / layout.LAYER_INDEX).exists()), None)

    def _recover(self) -> None:
        """Finish or discard what a dead process left. If somebody writes now, he has done it."""
        staging = self.staging
        if staging.needs_sweep():
            with self.lock.hold("recovery after an interrupted run", wait=False) as held:
                if held:
                    self.settle()
            staging.empty_trash()

    def settle(self) -> None:
        """Carry out a journal, and sweep. Only under the lock."""
        journal.apply(self.root, self.staging.journal)
        self.staging.sweep()

    def locate_layer(self, digest: str) -> Path:
        """Where a published or staged layer lies; RepositoryChanged where there is neither."""
        found = self._find_layer(digest)
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

    def keep(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """Pass on the blob, which is unpacked as it comes."""
        return chunks

    def finish(self) -> Mapping[str, int]:
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
        return self.sink.refused

    def close(self) -> None:
        """Let go of open files."""
        self.sink.close()
        self.index.close()


def _is_new(root: Path) -> bool:
    """Whether publishing would begin a tree here: an empty directory, or none in one that is."""
    try:
        return not set(os.listdir(root)) - {"lost+found"}
    except FileNotFoundError:
        return root.parent.is_dir()
    except NotADirectoryError:
        return False


def _check_readable(root: Path) -> None:
    for path, missing in (
        (root, "there is no such directory"),
        (root / layout.METADATA, f"it holds no published tree (no {layout.METADATA})"),
    ):
        if not os.path.isdir(path):
            raise RepositoryError(
                f"cannot read repository {root}",
                why=missing,
                hint="give its place with --repository, or publish into it first",
            )


def _prepare(root: Path) -> Staging:
    """The staging space of a directory that is fit to be published into."""
    try:
        _make_root(root)
        present = {entry.name for entry in os.scandir(root)} - {"lost+found"}
    except FileNotFoundError as error:
        raise RepositoryError(
            f"cannot use repository {root}",
            why=f"{root.parent} does not exist",
            hint=f"create it (mkdir -p {root.parent}), or mount what should be there",
        ) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise RepositoryError(
            f"cannot use repository {root}", why=f"{error.filename} is not a directory"
        ) from error
    except OSError as error:
        raise _unwritable(root, error) from error
    known = {layout.METADATA, layout.LAYERS, layout.FLAT}
    if present and not present & known:
        raise RepositoryError(
            f"cannot use repository {root}",
            why=f"it holds {sorted(present)[0]!r} but no published tree",
            hint="choose an empty directory, so that nothing of yours gets mixed in",
        )
    try:
        return Staging(root)
    except OSError as error:
        raise _unwritable(root, error) from error


def _make_root(root: Path) -> None:
    """Make the directory if only itself is missing, open to all readers whatever the umask is."""
    try:
        root.mkdir()
    except FileExistsError:
        if not root.is_dir():
            raise
    else:
        root.chmod(PUBLIC_DIRECTORY_MODE)


def _unwritable(root: Path, error: OSError) -> RepositoryError:
    if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
        return RepositoryError(
            f"cannot use repository {root}",
            why="its file system cannot lock files, so that two publishers would be one too many",
            hint="mount it with locks (for NFS: without `nolock`), or choose another file system",
        )
    return RepositoryError(
        f"cannot write to repository {root}",
        why=f"{error.filename or root}: {error.strerror}",
        hint="publish as its owner, with space left and not mounted read-only",
    )


def _gone(digest: str) -> RepositoryChanged:
    return RepositoryChanged(
        f"cannot use layer {digest}", why="it was collected while this image was prepared"
    )


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # removed while we were reading
        raise error
