"""A repository in CVMFS: read through its mount, changed by `cvmfs_server`.

Beside it we keep a tree of our own (the *shadow*): the same names with everything that is small
(records, indexes, links) and nothing that is large. It is a directory repository, and holds what
every publisher needs: the writer lock, staged layers, the history. Where the repository is not
mounted it is also what is read, as long as nobody else has published meanwhile.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from publisher.entry import EntryType
from publisher.oci.digest import digest_hex
from publisher.repository import Found, RepositoryChanged, RepositoryError
from publisher.repository.cvmfs.carrying import finish_pending, renew
from publisher.repository.cvmfs.configuration import CONFIGURATION, load_configuration
from publisher.repository.cvmfs.engine import LayerEngine
from publisher.repository.cvmfs.gate import Gate
from publisher.repository.cvmfs.guard import Guard
from publisher.repository.cvmfs.pending import read as read_pending
from publisher.repository.cvmfs.spool import DEFAULT_LIMIT, Spool
from publisher.repository.cvmfs.staged import CvmfsLayerStage, StagedLayer
from publisher.repository.cvmfs.transaction import CvmfsTransaction
from publisher.repository.directory.repository import DEFAULT_WAIT, DirectoryRepository
from publisher.repository.directory.survey import type_of
from publisher.repository.disk import write_new_file
from publisher.tree import layout
from publisher.tree.history import Record
from publisher.tree.layout import RepositoryURL

STATE = Path("/var/lib/publisher")
"""Where the shadows of all repositories lie, unless told otherwise."""

_INDEX_IN_MEMORY = 2**20
_GREETING = "new_repository"
"""The file that `cvmfs_server mkfs` puts into every repository."""


class CvmfsRepository:
    """The CVMFS repository that `url` names.

    `state` is the directory of our shadows, `configuration` the one with the server's own settings.
    `writable`, `wait` (seconds) and `on_wait` mean what they mean for a directory. `verify` reads
    back, through the mount, all that was published. `spool` is how many bytes of compressed layers
    may wait to be published.
    """

    keeps_xattrs = False

    def __init__(
        self,
        url: RepositoryURL,
        engine: LayerEngine,
        *,
        writable: bool = False,
        wait: float = DEFAULT_WAIT,
        on_wait: Callable[[str], None] | None = None,
        verify: bool = False,
        spool: int = DEFAULT_LIMIT,
        state: Path = STATE,
        configuration: Path = CONFIGURATION,
    ) -> None:
        self.url = url
        self.engine = engine
        self.verify = verify
        self.gate = Gate()
        self.configuration = load_configuration(url.location, configuration)
        self._mounted: DirectoryRepository | None = None
        shadow = self.state = state / url.location
        if writable:
            self.configuration.require_ours()
            _make_state(shadow)
        self._has_shadow = writable or (shadow / layout.METADATA).is_dir()
        self._shadow = (
            DirectoryRepository(
                RepositoryURL("dir", str(shadow)), writable=writable, wait=wait, on_wait=on_wait
            )
            if self._has_shadow
            else None
        )
        self._synced = shadow / layout.STATE / "published.json"
        if writable:
            self.blobs.mkdir(mode=0o700, exist_ok=True)
            session = self.shadow.staging.session
            free = self.shadow.free_space
            self._spool = Spool(self.blobs, session, spool, self._give_up_now, free)
            note = shadow / layout.STATE / "server-command.json"
            self.guard = Guard(self.configuration, note, wait, on_wait or (lambda text: None))
            self._recover()
        else:
            self._begin_shadow()

    @property
    def shadow(self) -> DirectoryRepository:
        """Our own small tree."""
        assert self._shadow is not None, "the repository was opened for reading only"
        return self._shadow

    @property
    def view(self) -> DirectoryRepository:
        """What is read: the mounted tree, or else the shadow."""
        if self._mounted is None and (self.configuration.mount / layout.METADATA).is_dir():
            mount = RepositoryURL("dir", str(self.configuration.mount))
            self._mounted = DirectoryRepository(mount)
        if self._mounted is not None:
            return self._mounted
        if self._shadow is None:
            raise RepositoryError(
                f"cannot read {self.url}",
                why=f"nothing is published at {self.configuration.mount}",
                hint=f"mount it: cvmfs_server mount {self.configuration.name}; or publish into it",
            )
        return self._shadow

    def read(self, path: str) -> bytes | None:
        """A small file's bytes; None where there is none."""
        with self.gate.reading():
            return self.view.read(path)

    def link_text(self, path: str) -> str | None:
        """A symlink's text; None where there is none."""
        with self.gate.reading():
            return self.view.link_text(path)

    def exists(self, path: str) -> bool:
        """Whether anything is at `path` (a symlink counts, whatever it points to)."""
        with self.gate.reading():
            return self.view.exists(path)

    def kind(self, path: str) -> EntryType | None:
        """What is at `path`, without following a link there; None where nothing is."""
        with self.gate.reading():
            return self.view.kind(path)

    def identity(self, path: str) -> object | None:
        """None: whether two names share content is the server's business, and cannot be seen."""
        return None

    def children(self, path: str) -> list[str]:
        """The names in the directory `path`, sorted, but for those that are the server's own."""
        with self.gate.reading():
            names = self.view.children(path)
        return [n for n in names if not n.startswith(".cvmfs") and (path or n != _GREETING)]

    def names(self) -> Iterator[str]:
        """Every published image's name, sorted."""
        with self.gate.reading():
            found = list(self.view.names())
        return iter(found)

    def walk(self, path: str) -> Iterator[Found]:
        """Everything in the tree at `path`, itself first (as ""), sorted like a layer index."""
        if self.view is self._shadow:
            raise RepositoryError(
                f"cannot look into {path} of {self.url}",
                why="it is not mounted here",
                hint=f"mount it: cvmfs_server mount {self.configuration.name}",
            )
        for found in self.view.walk(path):
            if not found.entry.path.rpartition("/")[2].startswith(".cvmfs"):
                yield found

    def unfinished(self) -> bool:
        """Whether a committed transaction waits to be carried out to its end."""
        try:
            left = read_pending(self.pending) if self._has_shadow else None
        except PermissionError:
            return False  # that is for its publisher to know
        return left is not None and bool(left.rest) and left.is_decided(self)

    def history(self) -> Iterator[Record]:
        """What transactions of this machine did, the latest first."""
        return self._shadow.history() if self._shadow is not None else iter(())

    def free_space(self) -> int | None:
        """How many bytes can still be kept here on their way; the storage does not say."""
        return self._shadow.free_space() if self._shadow is not None else None

    def room_for(
        self, layers: Mapping[str, int], keep_waiting: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Hold room in the spool for those of an image's `layers` that are not published."""
        new = {
            digest_hex(digest): size
            for digest, size in layers.items()
            if not self.exists(layout.layer_directory(digest))
        }
        return self._spool.room_for(new, keep_waiting)

    def published_kind(self, path: str) -> EntryType | None:
        """What the server has at `path`. Unlike `kind` it may be asked while the server works."""
        mount = self.configuration.mount
        if not self.configuration.is_mounted:
            # The shadow has a directory for its own state; to send one that is there does no harm.
            return None if path == layout.METADATA else self.shadow.kind(path)
        try:
            return type_of((mount / path).lstat())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def has_layer(self, digest: str) -> bool:
        """Whether the layer need not be fetched: it is published, or staged by an earlier run."""
        if self.exists(layout.layer_index(digest)):
            return True
        return self._has_shadow and self.staged(digest).is_complete()

    def open_index(self, digest: str) -> BinaryIO:
        """The index of a published or staged layer; RepositoryChanged where there is neither.

        It is a copy: no file of the mounted repository stays open, since the server minds.
        """
        copy = cast(IO[bytes], tempfile.SpooledTemporaryFile(_INDEX_IN_MEMORY))  # noqa: SIM115
        try:
            with self.gate.reading():
                place = self.view.root / layout.layer_index(digest)
                if not place.exists() and self._has_shadow:
                    place = self.staged(digest).index
                with place.open("rb") as file:
                    shutil.copyfileobj(file, copy)
        except FileNotFoundError as error:
            copy.close()
            raise RepositoryChanged(
                f"cannot use layer {digest}", why="it was collected while this image was prepared"
            ) from error
        copy.seek(0)
        return cast(BinaryIO, copy)

    @contextmanager
    def stage_layer(self, digest: str) -> Iterator[CvmfsLayerStage]:
        """Begin to take in a layer; without `finish` nothing of it is kept."""
        staging = self.shadow.staging
        directory = staging.new_path()
        stage = CvmfsLayerStage(directory, self.staged(digest), self.engine)
        try:
            yield stage
        finally:
            stage.close()
            staging.discard(directory)

    @contextmanager
    def transaction(self, purpose: str) -> Iterator[CvmfsTransaction]:
        """Begin a change; `purpose` tells others what goes on ("ingest of …")."""
        staging = self.shadow.staging
        directory = staging.new_path()
        directory.mkdir(mode=0o700)
        try:
            with self.shadow.transaction(purpose) as transaction:
                yield CvmfsTransaction(self, transaction, directory)
        finally:
            staging.discard(directory)

    def close(self) -> None:
        """Let go of private staging space. What is finished stays for the next run."""
        if self._shadow is not None:
            self._shadow.close()

    @property
    def blobs(self) -> Path:
        """Where the compressed layers of images that are not published yet are kept."""
        return self.shadow.staging.directory / "blobs"

    @property
    def pending(self) -> Path:
        """What is left of a transaction between two calls of the server."""
        return self.shadow.root / layout.STATE / "pending.json"

    def staged(self, digest: str) -> StagedLayer:
        """Where the layer is, or will be, while it is staged."""
        directory = self.shadow.root / layout.STATE
        name = digest_hex(digest)
        return StagedLayer(directory / "layers" / name, directory / "blobs" / name)

    def give_up(self, digest: str) -> None:
        """Delete what is staged of a layer that needs no publishing. Only under the writer lock."""
        staged = self.staged(digest)
        self.shadow.staging.give_up(staged.directory)
        staged.forget_blob()

    def _give_up_now(self, name: str) -> bool:
        """Give up the staged layer with that hex digest, if nobody publishes at this moment."""
        with self.shadow.lock.hold("making room in the spool", wait=False) as held:
            if held:
                self.give_up(f"sha256:{name}")
            return held

    def settle(self) -> None:
        """Finish or discard what a dead publisher left. Only under the writer lock."""
        self.guard.recover()
        self.guard.wait_until_free()
        finish_pending(self)
        self._drop_orphans()

    def _recover(self) -> None:
        """Do that as soon as we can. If somebody writes now, he has done it."""
        with self.shadow.lock.hold("recovery after an interrupted run", wait=False) as held:
            if held:
                self.guard.recover()
            self._begin_shadow(alone=held)
            if held and self.pending.exists():
                self.settle()
            if held:
                renew(self)
        self.shadow.staging.empty_trash()

    def _drop_orphans(self) -> None:
        """Delete kept blobs whose layer is not staged any more."""
        for blob in self.blobs.iterdir():
            if not (self.shadow.staging.directory / "layers" / blob.stem).exists():
                blob.unlink(missing_ok=True)

    def shadow_is_current(self) -> bool:
        """Whether the shadow shows what is published: nobody else published since we did."""
        try:
            value = json.loads(self._synced.read_bytes())
        except (FileNotFoundError, ValueError):
            return False
        return bool(value == {"rootHash": self.configuration.published().root_hash})

    def note_shadow(self, current: bool) -> None:
        """Write down whether the shadow shows what is published now."""
        self._synced.unlink(missing_ok=True)
        if current:
            value = {"rootHash": self.configuration.published().root_hash}
            write_new_file(self._synced, json.dumps(value).encode(), mode=0o600)

    def _begin_shadow(self, *, alone: bool = False) -> None:
        """See that what we read is what is published; if `alone`, begin it for a new repository."""
        if (self.configuration.mount / layout.METADATA).is_dir() or self._shadow is None:
            return
        if self.shadow_is_current():
            return
        # A repository is made with its first revision.
        is_new = self.configuration.is_mounted or self.configuration.published().revision == 1
        if is_new and not any(self._shadow.names()):
            if alone:
                self.note_shadow(True)
            return
        self.close()
        raise RepositoryError(
            f"cannot tell what is published in {self.url}",
            why=f"{self.configuration.mount} shows nothing of it, and somebody else has published "
            "since we last did",
            hint=f"mount it: cvmfs_server mount {self.configuration.name}",
        )


def _make_state(shadow: Path) -> None:
    try:
        shadow.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise RepositoryError(
            f"cannot keep the state of cvmfs:{shadow.name}",
            why=f"{error.filename}: {error.strerror}",
            hint=f"make {shadow} for the repository's owner, with room for one image's "
            "compressed layers: install -d -o OWNER; or set PUBLISHER_STATE",
        ) from error
