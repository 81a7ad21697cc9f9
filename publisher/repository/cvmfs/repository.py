"""A repository in CVMFS: read through its mount, changed by `cvmfs_server`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from publisher.durations import DEFAULT_WAIT
from publisher.entry import EntryType
from publisher.oci.digest import digest_hex
from publisher.repository import Found
from publisher.repository.cvmfs.configuration import load_configuration
from publisher.repository.cvmfs.kept import DEFAULT_LIMIT as DEFAULT_MEMORY
from publisher.repository.cvmfs.mirror import Mirror
from publisher.repository.cvmfs.mount import PublishedTree
from publisher.repository.cvmfs.places import CONFIGURATION, STATE
from publisher.repository.cvmfs.spool import DEFAULT_LIMIT, Spool
from publisher.repository.damaged import read_damaged
from publisher.repository.disk import open_file
from publisher.tree import layout
from publisher.tree.history import Record
from publisher.tree.layout import RepositoryURL

if TYPE_CHECKING:  # what writes is loaded with the first transaction: most commands only read
    from publisher.layers.replay import ReadContents
    from publisher.repository.cvmfs.execution import Execution
    from publisher.repository.cvmfs.layer_stage import CvmfsLayerStage
    from publisher.repository.cvmfs.transaction import CvmfsTransaction


class CvmfsRepository:
    """The CVMFS repository that `url` names.

    Args:
        url: The URL of the repository.
        writable: Prepare for transactions: create the mirror, recover interrupted transactions.
        wait: Seconds to wait for other publishers, leases, and processes that use the mount.
        on_wait: Called with a sentence when a wait begins.
        stop: Ends the waiting once it is set.
        verify: Read all published content back through the mount.
        spool: How many bytes of compressed layers may wait to be published.
        memory: How many bytes of the contents of these layers may be kept in memory.
        state: The directory of the metadata mirrors.
        configuration: The directory of the server's own settings.
        read_contents: Reads the contents of staged layers when they are published; by default this
            process does.

    Raises:
        RepositoryError: The repository is unknown here, belongs to another user, or cannot be read.
    """

    keeps_xattrs = False

    def __init__(
        self,
        url: RepositoryURL,
        *,
        writable: bool = False,
        wait: float = DEFAULT_WAIT,
        on_wait: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
        verify: bool = False,
        spool: int = DEFAULT_LIMIT,
        memory: int = DEFAULT_MEMORY,
        state: Path = STATE,
        configuration: Path = CONFIGURATION,
        read_contents: ReadContents | None = None,
    ) -> None:
        self.url = url
        self.configuration = load_configuration(url.location, configuration)
        self.state = state / url.location
        if writable:
            self.configuration.require_owner()
        self.mirror = Mirror(
            self.configuration,
            self.state,
            writable=writable,
            wait=wait,
            on_wait=on_wait,
            stop=stop,
            memory=memory,
        )
        self.tree = PublishedTree(url, self.configuration, self.mirror)
        if not writable:
            self.mirror.require_readable()
            return
        from publisher.repository.cvmfs.guard import Guard

        session = self.mirror.tree.staging.session
        self._spool = Spool(
            self.mirror.blobs,
            session,
            spool,
            self.mirror.discard_if_idle,
            self.mirror.free_space,
            self.mirror.kept.forget,
        )
        notify = on_wait or (lambda text: None)
        self.guard = Guard(self.configuration, self.mirror.command_note, wait, notify, stop)
        self._verify = verify
        self._read_contents = read_contents
        self._recover()

    @cached_property
    def _execution(self) -> Execution:
        from publisher.layers.replay import read_contents_here
        from publisher.repository.cvmfs.execution import Execution

        return Execution(
            self.url,
            self.configuration,
            self.tree,
            self.mirror,
            self.guard,
            self._verify,
            self._read_contents or read_contents_here,
        )

    def _recover(self) -> None:
        """Recover after an interrupted publisher, unless an active publisher did."""
        with self.mirror.tree.lock.hold("recovery after an interrupted run", wait=False) as held:
            if held:
                self.guard.recover(of_earlier_run=True)
            self.mirror.require_readable(alone=held)
            if held and self.mirror.pending.exists():
                from publisher.repository.cvmfs.transaction import settle

                settle(self._execution)
            if held and self.configuration.is_gateway:  # elsewhere, the server updates the mount
                self._execution.renew_mount()
        self.mirror.tree.staging.empty_trash()

    @property
    def local_root(self) -> Path | None:
        """The read-only mount of the server; None if it is not mounted."""
        return self.tree.view.root if self.tree.is_mounted else None

    def read(self, path: str) -> bytes | None:
        """Return the content of a small file; None if it is missing."""
        return self.tree.read(path)

    def content(self, path: str) -> Iterator[bytes]:
        """Yield the content of a published file; raise RepositoryError if nothing is mounted."""
        return self.tree.content(path)

    def link_text(self, path: str) -> str | None:
        """Return the text of a symlink; None if it is missing."""
        return self.tree.link_text(path)

    def exists(self, path: str) -> bool:
        """Return whether `path` exists; symlinks are not followed."""
        return self.tree.exists(path)

    def kind(self, path: str) -> EntryType | None:
        """Return the type of the entry at `path`; symlinks are not followed."""
        return self.tree.kind(path)

    def identity(self, path: str) -> object | None:
        """Return None, since hard links cannot be detected through the mount."""
        return None

    def children(self, path: str) -> list[str]:
        """Return the sorted names in the directory `path`, without the server's own files."""
        return self.tree.children(path)

    def names(self) -> Iterator[str]:
        """Yield every published image's name, sorted."""
        return iter(self.tree.names())

    def walk(self, path: str) -> Iterator[Found]:
        """Yield all entries of the tree at `path`, its root (as "") first, in index order."""
        return self.tree.walk(path)

    def unfinished(self) -> bool:
        """Return whether a committed transaction was interrupted between two server calls."""
        from publisher.repository.cvmfs import pending

        try:
            left = pending.read(self.mirror.pending) if self.mirror.exists else None
        except PermissionError:
            return False  # other users cannot read the state directory
        if left is None or not left.rest:
            return False
        return left.is_decided(self.tree, self.configuration.published().revision)

    def history(self, damaged: Callable[[str], None] | None = None) -> Iterator[Record]:
        """Yield the transactions of this machine, the latest first."""
        return self.mirror.history(damaged)

    def free_space(self) -> int | None:
        """Return how many bytes can be staged here; the space of the storage is unknown."""
        return self.mirror.free_space()

    def reserve_space(
        self, layers: Mapping[str, int], keep_waiting: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Reserve space in the spool for those of an image's `layers` that are not published."""
        new = {
            digest_hex(digest): size
            for digest, size in layers.items()
            if not self.exists(layout.layer_directory(digest))
        }
        return self._spool.reserve(new, keep_waiting)

    def discard_staged(self, keep: Collection[str]) -> int:
        """Delete the layers in the spool, except those in `keep`, unless others may need them."""
        if self.mirror.pending.exists():
            return 0  # an interrupted transaction may need them
        discarded = self.mirror.tree.discard_staged(keep)
        self.mirror.delete_orphans()
        return discarded

    def has_layer(self, digest: str) -> bool:
        """Return whether the layer is published or staged, so that it need not be fetched."""
        index = layout.layer_index(digest)
        # A commit between the first two checks publishes the staged layer.
        return self.exists(index) or self.mirror.is_staged(digest) or self.exists(index)

    def open_index(self, digest: str) -> BinaryIO:
        """Open the index of a published or staged layer; raise RepositoryChanged otherwise."""
        return self.tree.open_index(digest)

    def has_tar_split(self, digest: str) -> bool:
        """Return whether a published or staged layer has tar-split data."""
        is_staged = self.mirror.exists and self.mirror.staged(digest).tar_split.exists()
        return is_staged or self.exists(layout.layer_tar_split(digest))

    def layer_packages(self, digest: str) -> bytes | None:
        """Return the record of a published or staged layer's packages; None without one."""
        if self.mirror.exists:
            staged = self.mirror.staged(digest).packages
            with suppress(FileNotFoundError), open_file(staged) as file:
                return file.read()
        return read_damaged(self, layout.layer_packages(digest))

    @contextmanager
    def stage_layer(self, digest: str) -> Iterator[CvmfsLayerStage]:
        """Begin to stage a layer, which is discarded unless `finish` is called."""
        from publisher.repository.cvmfs.layer_stage import CvmfsLayerStage

        staging = self.mirror.tree.staging
        directory = staging.new_path()
        staged = self.mirror.staged(digest)
        stage = CvmfsLayerStage(directory, staged, f"layer {digest}", self.mirror.kept)
        try:
            with stage.full_disk_explained():
                yield stage
        finally:
            try:
                stage.close()  # on a full disk, it may fail to write the rest of a file
            finally:
                staging.discard(directory)

    @contextmanager
    def transaction(self, purpose: str) -> Iterator[CvmfsTransaction]:
        """Begin a change; `purpose` is shown to waiting processes ("ingest of …")."""
        from publisher.repository.cvmfs.transaction import CvmfsTransaction

        staging = self.mirror.tree.staging
        directory = staging.new_path()
        directory.mkdir(mode=0o700)
        try:
            with self.mirror.tree.transaction(purpose) as transaction:
                yield CvmfsTransaction(self._execution, transaction, directory)
        finally:
            staging.discard(directory)

    def close(self) -> None:
        """Delete unfinished work of this process. Staged layers stay for the next run."""
        self.mirror.close()
