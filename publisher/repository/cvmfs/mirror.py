"""The metadata mirror of a CVMFS repository: a local tree on the publishing machine.

It has the same names as the repository, with all small files (records, indexes, links) and without
the content of layers. It is a directory repository, and also has the writer lock, staged layers and
the history. If the repository is not mounted, the mirror is read instead, provided that it is
current: no other publisher has published since it was updated.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from publisher.codec import Codec, Malformed
from publisher.lazy import dataclass
from publisher.oci.digest import digest_hex
from publisher.repository import RepositoryError
from publisher.repository.cvmfs.configuration import Configuration
from publisher.repository.cvmfs.kept import KeptLayers
from publisher.repository.cvmfs.spool import SpoolFull, StagedLayer
from publisher.repository.directory.repository import DirectoryRepository
from publisher.repository.disk import write_new_file
from publisher.tree import layout
from publisher.tree.history import Record
from publisher.tree.layout import RepositoryURL


@dataclass(frozen=True, slots=True)
class _Synced:
    """published.json: the revision that the mirror shows."""

    root_hash: str


_SYNCED = Codec(_Synced)


_COMMAND_NOTE = "server-command.json"


def command_note(place: Path) -> Path:
    """Return the file with the process groups of server commands, of the mirror in `place`."""
    return place / layout.STATE / _COMMAND_NOTE


class Mirror:
    """The mirror in the directory `place`, of the repository that `configuration` describes.

    `writable`, `wait` (seconds), `on_wait` and `stop` are those of a directory repository. A mirror
    that is not writable may be missing. The contents of staged layers may take `memory` bytes.
    """

    def __init__(
        self,
        configuration: Configuration,
        place: Path,
        *,
        writable: bool,
        wait: float,
        on_wait: Callable[[str], None] | None,
        stop: threading.Event | None,
        memory: int,
    ) -> None:
        self.kept = KeptLayers(memory)
        self._configuration = configuration
        self._state = place / layout.STATE
        self._synced = self._state / "published.json"
        self._tree: DirectoryRepository | None = None
        if writable:
            _make_place(place)
        if writable or (place / layout.METADATA).is_dir():
            url = RepositoryURL("dir", str(place))
            self._tree = DirectoryRepository(
                url,
                writable=writable,
                may_be_new=writable,
                wait=wait,
                on_wait=on_wait,
                stop=stop,
            )
        if writable:
            self.blobs.mkdir(mode=0o700, exist_ok=True)

    @property
    def exists(self) -> bool:
        """Whether there is a mirror."""
        return self._tree is not None

    @property
    def tree(self) -> DirectoryRepository:
        """The mirror as a directory repository."""
        assert self._tree is not None, "the repository was opened for reading only"
        return self._tree

    @property
    def blobs(self) -> Path:
        """The directory of compressed layers that are waiting to be published."""
        return self._state / "blobs"

    @property
    def pending(self) -> Path:
        """The file that describes a transaction during its server calls."""
        return self._state / "pending.json"

    @property
    def command_note(self) -> Path:
        """The file with the process groups of this publisher's server commands."""
        return self._state / _COMMAND_NOTE

    def staged(self, digest: str) -> StagedLayer:
        """Return the place of a staged layer."""
        name = digest_hex(digest)
        return StagedLayer(self._state / "layers" / name, self.blobs / name)

    def is_staged(self, digest: str) -> bool:
        """Return whether the layer can be published from here."""
        return self.exists and self.staged(digest).is_complete()

    def discard(self, digest: str) -> None:
        """Delete a staged layer that need not be published. Only under the writer lock."""
        staged = self.staged(digest)
        self.tree.staging.move_to_trash(staged.directory)
        self.forget_contents(digest)

    def forget_contents(self, digest: str) -> None:
        """Delete what is not needed once the layer is published."""
        staged = self.staged(digest)
        staged.delete_blob()
        self.kept.forget(staged.name)

    def discard_if_idle(self, hexadecimal: str) -> bool:
        """Discard the staged layer sha256:`hexadecimal` if no publisher holds the writer lock.

        Returns whether it was discarded.
        """
        with self.tree.lock.hold("freeing space in the spool", wait=False) as held:
            if held:
                self.discard(f"sha256:{hexadecimal}")
            return held

    def delete_orphans(self) -> None:
        """Delete blobs whose layer is no longer staged."""
        for blob in self.blobs.iterdir():
            if not (self._state / "layers" / blob.stem).exists():
                blob.unlink(missing_ok=True)

    def is_current(self) -> bool:
        """Return whether no other publisher published since the mirror was last updated."""
        try:
            synced = _SYNCED.parse(self._synced.read_bytes())
        except (FileNotFoundError, Malformed):
            return False
        return synced.root_hash == self._configuration.published().root_hash

    def mark_current(self, current: bool) -> None:
        """Record whether the mirror matches the current revision."""
        self._synced.unlink(missing_ok=True)
        if current:
            synced = _Synced(self._configuration.published().root_hash)
            write_new_file(self._synced, _SYNCED.dump(synced), mode=0o600)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raise SpoolFull, which names the directory of the state, if its disk is full."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise SpoolFull(
                f"cannot keep the state of cvmfs:{self._configuration.name} in {self._state}",
                why=error.strerror or str(error),
                hint="free space there, or set PUBLISHER_STATE to a directory on a larger disk",
            ) from error

    def require_readable(self, *, alone: bool = False) -> None:
        """Raise RepositoryError unless the mount exists or the mirror is current.

        With `alone` (the writer lock is held), the mirror of a new repository becomes current.
        """
        configuration = self._configuration
        if (configuration.mount / layout.METADATA).is_dir() or self._tree is None:
            return
        if self.is_current():
            return
        # A repository is created with its first revision.
        is_new = configuration.is_mounted or configuration.published().revision == 1
        if is_new and not any(self._tree.names()):
            if alone:
                self.mark_current(True)
            return
        self.close()
        raise RepositoryError(
            f"cannot determine what is published in cvmfs:{configuration.name}",
            why=f"nothing is mounted at {configuration.mount}, and another publisher changed the "
            "repository after this one",
            hint=f"mount it: cvmfs_server mount {configuration.name}",
        )

    def history(self, damaged: Callable[[str], None] | None = None) -> Iterator[Record]:
        """Yield the transactions of this machine, the latest first."""
        return self._tree.history(damaged) if self._tree is not None else iter(())

    def append_to_history(self, record: Record) -> bool:
        """Append a transaction, unless it is the latest one; return whether it was appended."""
        from publisher.repository.history import History

        with self.writing():
            return History(self._state).append(record.to_value())

    def free_space(self) -> int | None:
        """Return how many bytes can still be staged; None if unknown."""
        return self._tree.free_space() if self._tree is not None else None

    def close(self) -> None:
        """Delete unfinished work of this process. Staged layers stay for the next run."""
        self.kept.close()
        if self._tree is not None:
            self._tree.close()


def _make_place(place: Path) -> None:
    try:
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise RepositoryError(
            f"cannot keep the state of cvmfs:{place.name}",
            why=f"{error.filename}: {error.strerror}",
            hint=f"create {place} for the repository's owner, with space for one image's "
            "compressed layers: install -d -o OWNER; or set PUBLISHER_STATE",
        ) from error
