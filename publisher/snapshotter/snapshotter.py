"""The operations of a snapshotter for containerd, whose layers are those of published trees.

Each operation is one transaction of the state. A directory is made before the commit that makes its
snapshot exist, and removed after the commit that makes it not exist: a process that is killed at
any moment leaves at most directories that no snapshot has, which the next start removes.

The behaviour, errors included, is that of containerd's own overlay snapshotter.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from publisher.snapshotter.directories import Directories, remove_trees
from publisher.snapshotter.filters import parse_filters
from publisher.snapshotter.model import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    Kind,
    Mount,
    NotFound,
    Snapshot,
)
from publisher.snapshotter.reserve import Reserve
from publisher.snapshotter.store import Level, StateUnusable, Store
from publisher.snapshotter.trees import PublishedTrees

_LOG = logging.getLogger(__name__)

REFERENCE = "containerd.io/snapshot.ref"
"""The label with the chain ID of the stack that a client is about to unpack."""

LAYER_DIGEST = "containerd.io/snapshot/cri.layer-digest"
"""The label with the digest of the layer's blob, from clients that annotate snapshots."""


class Snapshotter:
    """The snapshots below one directory. Methods may be called by several threads."""

    def __init__(self, root: Path, trees: PublishedTrees) -> None:
        """Open the state in `root`, and clear up after an interrupted process.

        Raises:
            StateUnusable: The state is damaged, of another version, or in use.
            OSError: The directory cannot be used.
        """
        root.mkdir(0o700, parents=True, exist_ok=True)
        directory = root / "snapshots"
        directory.mkdir(0o700, exist_ok=True)
        self._lock = _lock(root)
        self._trees = trees
        self._directories = Directories(directory)
        self._store = Store(root / "state.db")
        self._reserve = Reserve(root / "reserve")
        self._index_off = ("index=off",) if _has_index() else ()
        self._recover()

    def close(self) -> None:
        """Close the state."""
        self._store.close()
        os.close(self._lock)

    def stat(self, name: str) -> Snapshot:
        """Return the snapshot of that name."""
        with self._store.transaction():
            return self._find(name)

    def walk(self, filters: Sequence[str] = ()) -> list[Snapshot]:
        """Return the snapshots that match any of `filters`; without filters, all."""
        matches = parse_filters(filters)
        with self._store.transaction():
            return [snapshot for snapshot in self._store.all() if matches(snapshot)]

    def prepare(self, name: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        """Make an active snapshot, to be written to; return its mounts.

        Raises:
            AlreadyExists: The name exists; or the labels name a layer of a published tree, which is
                a committed snapshot now, so that the client need not unpack it.
            NotFound: The parent does not exist.
            InvalidArgument: The parent is not committed.
        """
        chain = labels.get(REFERENCE, "")
        with self._store.transaction():
            below = self._new(name, parent)
            remote = bool(chain) and self._commit_published(chain, below, labels)
            if not remote:
                return self._create(Kind.ACTIVE, name, below, labels)
        raise AlreadyExists(f"snapshot {chain} is published")

    def view(self, name: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        """Make a snapshot that shows its parent, and cannot be changed; see `prepare`."""
        with self._store.transaction():
            return self._create(Kind.VIEW, name, self._new(name, parent), labels)

    def mounts(self, name: str) -> list[Mount]:
        """Return the mounts of an active snapshot or a view.

        Raises:
            FailedPrecondition: It is committed, or a layer that it needs is missing.
        """
        with self._store.transaction():
            snapshot = self._find(name)
            if snapshot.kind is Kind.COMMITTED:
                raise FailedPrecondition(f"snapshot {name} is not active or a view")
            _, *below = self._store.stack(snapshot)
            self._require_layers(below)
            return self._mounts(snapshot.id, snapshot.kind, below)

    def commit(self, name: str, key: str, labels: Mapping[str, str], parent: str = "") -> None:
        """Make the active snapshot `key` the committed snapshot `name`.

        Args:
            name: The new name.
            key: The name of the active snapshot.
            labels: The labels of the committed snapshot, which replace the present ones.
            parent: The parent to put a snapshot without a parent on.
        """
        snapshot = self.stat(key)
        usage = self._directories.usage(snapshot.id) if snapshot.kind is Kind.ACTIVE else (0, 0)
        with self._store.transaction():
            snapshot = self._find(key)
            if not name or self._store.find(name) is not None:
                raise AlreadyExists(f"snapshot {name}")
            if snapshot.kind is not Kind.ACTIVE:
                raise FailedPrecondition(f"snapshot {key} is not active")
            if parent and snapshot.parent not in ("", parent):
                raise InvalidArgument(f"snapshot {key} has another parent")
            below = self._committed(parent or snapshot.parent)
            self._store.commit(snapshot, name, below, time.time_ns(), labels, usage)

    def update(self, name: str, labels: Mapping[str, str], paths: Sequence[str]) -> Snapshot:
        """Change labels of a snapshot, and return it.

        Args:
            name: The snapshot.
            labels: The new labels.
            paths: "labels" for all, "labels.X" for one; without paths all are replaced.

        Raises:
            InvalidArgument: Another field was named.
        """
        with self._store.transaction():
            snapshot = self._find(name)
            new = dict(snapshot.labels) if paths else dict(labels)
            for path in paths:
                field, _, key = path.partition(".")
                if field != "labels":
                    raise InvalidArgument(f"cannot update {path!r} of snapshot {name}")
                if key:
                    new[key] = labels.get(key, "")
                else:
                    new = dict(labels)
            self._store.set_labels(snapshot, new, time.time_ns())
            return self._find(name)

    def usage(self, name: str) -> tuple[int, int]:
        """Return bytes and inodes of a snapshot's own files; a layer of a tree has none here."""
        snapshot = self.stat(name)
        if snapshot.kind is Kind.ACTIVE:
            return self._directories.usage(snapshot.id)
        return snapshot.size, snapshot.inodes

    def remove(self, name: str) -> None:
        """Remove a snapshot.

        Raises:
            FailedPrecondition: It is the parent of another one.
        """
        try:
            number = self._delete(name)
        except OSError as error:
            # A removal needs space before it frees some.
            if error.errno != errno.ENOSPC or not self._reserve.release():
                raise
            number = self._delete(name)
        try:
            self._directories.remove(number)
        except OSError as error:  # the snapshot does not exist any more, whatever is left of it
            _LOG.warning("cannot remove %s: %s", error.filename, error.strerror)
        self._reserve.keep()

    def _delete(self, name: str) -> int:
        """Delete a snapshot from the state; return its number."""
        with self._store.transaction():
            snapshot = self._find(name)
            if self._store.has_children(snapshot):
                raise FailedPrecondition(f"cannot remove snapshot {name}", why="it has a child")
            self._store.delete(snapshot)
        return snapshot.id

    def cleanup(self) -> None:
        """Remove directories that no snapshot has."""
        with self._store.transaction():
            remove_trees(self._directories.unknown({each.id for each in self._store.all()}))

    def _recover(self) -> None:
        """Remove what an interrupted process left, and make what a power failure lost."""
        with self._store.transaction():
            snapshots = self._store.all()
            left = self._directories.unknown({each.id for each in snapshots})
            remove_trees(left)
            lost = [each for each in snapshots if self._directories.restore(each)]
        if left:
            _LOG.info("removed %d directories of an interrupted process", len(left))
        for each in lost:
            if each.kind is Kind.COMMITTED and not each.layer:
                _LOG.warning("the files of snapshot %s are lost", each.name)

    def _find(self, name: str) -> Snapshot:
        snapshot = self._store.find(name)
        if snapshot is None:
            raise NotFound(f"snapshot {name} does not exist")
        return snapshot

    def _new(self, name: str, parent: str) -> Snapshot | None:
        """Return the parent of a new snapshot, whose name must be free."""
        if not name:
            raise InvalidArgument("cannot make a snapshot", why="it has no name")
        below = self._committed(parent)
        if self._store.find(name) is not None:
            raise AlreadyExists(f"snapshot {name}")
        return below

    def _committed(self, name: str) -> Snapshot | None:
        """Return the snapshot of that name, which must be committed; None for an empty name."""
        if not name:
            return None
        snapshot = self._find(name)
        if snapshot.kind is not Kind.COMMITTED:
            raise InvalidArgument(f"parent {name} is not a committed snapshot")
        return snapshot

    def _commit_published(
        self, chain: str, below: Snapshot | None, labels: Mapping[str, str]
    ) -> bool:
        """Have a snapshot of the stack if a tree has its top layer; return whether one has."""
        existing = self._store.published(below, chain)
        if existing is not None:
            return self._has_layer(existing)
        parent_chain = below.labels.get(REFERENCE, "") if below else ""
        if below and not parent_chain:
            return False
        layer = self._trees.find(chain, labels.get(LAYER_DIGEST, ""), parent_chain)
        if layer is None:
            return False
        name = chain
        while self._store.find(name) is not None:  # the same stack on another parent
            name = f"{name}+"
        number = self._store.add(name, below, Kind.COMMITTED, time.time_ns(), labels, layer, chain)
        self._directories.make(number, Kind.COMMITTED, layer, None)
        _LOG.info("%s is %s", chain, layer)
        return True

    def _create(
        self,
        kind: Kind,
        name: str,
        below: Snapshot | None,
        labels: Mapping[str, str],
    ) -> list[Mount]:
        """Add an active snapshot or a view, with its directory; return its mounts."""
        stack = self._store.stack(below) if below else []
        self._require_layers(stack)
        owner = None
        if stack:
            status = os.stat(self._directories.files(stack[0].number))
            owner = (status.st_uid, status.st_gid)
        number = self._store.add(name, below, kind, time.time_ns(), labels)
        self._directories.make(number, kind, "", owner)
        return self._mounts(number, kind, stack)

    def _mounts(self, number: int, kind: Kind, stack: Sequence[Level]) -> list[Mount]:
        files = self._directories.files(number)
        is_view = kind is Kind.VIEW
        if not stack or (is_view and len(stack) == 1):
            source = self._directories.files(stack[0].number) if stack else files
            return [Mount("bind", source, ("ro" if is_view else "rw", "rbind"))]
        work = self._directories.work(number)
        own = () if is_view else (f"workdir={work}", f"upperdir={files}")
        lower = ":".join(self._directories.files(each.number) for each in stack)
        return [Mount("overlay", "overlay", (*self._index_off, *own, f"lowerdir={lower}"))]

    def _require_layers(self, stack: Sequence[Level]) -> None:
        """Raise FailedPrecondition if the layer that a snapshot shows is in no tree any more."""
        for level in stack:
            if not level.layer or os.path.isdir(level.layer):
                continue
            snapshot = self._store.numbered(level.number)
            if not self._has_layer(snapshot):
                raise FailedPrecondition(
                    f"cannot use snapshot {snapshot.name}",
                    why=f"{snapshot.layer} does not exist any more",
                    hint="remove the image from containerd, and pull it again",
                )

    def _has_layer(self, snapshot: Snapshot) -> bool:
        """Return whether the files exist; a layer may have come to another place."""
        if not snapshot.layer or os.path.isdir(snapshot.layer):
            return True
        layer = self._trees.find(snapshot.labels.get(REFERENCE, ""))
        if layer is None:
            return False
        self._directories.show(snapshot.id, layer)
        self._store.set_layer(snapshot, layer)
        _LOG.info("%s is %s now", snapshot.name, layer)
        return True


def _lock(root: Path) -> int:
    """Lock the state against other processes, until the descriptor is closed."""
    descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StateUnusable(
            f"cannot use the state in {root}",
            why="another snapshotter uses it",
            hint="give each one a --root of its own",
        ) from error
    return descriptor


def _has_index() -> bool:
    """Return whether overlayfs knows the option index, which is of no use with a tree below it."""
    return Path("/sys/module/overlay/parameters/index").exists()
