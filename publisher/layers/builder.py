"""Build one layer: convert members of an archive to entries of a tree and rows of the ledger."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from publisher.entry import Content, Entry, EntryType, Hole, TreeSink
from publisher.layers.content import ContentHash
from publisher.layers.errors import LayerError, LimitExceeded, UnsafeName
from publisher.layers.ledger import Ledger, Row
from publisher.layers.names import (
    CVMFS_PREFIX,
    MAX_COMPONENT_BYTES,
    Marker,
    Where,
    reserved,
    safe_path,
    shown,
)
from publisher.layers.policy import Policy
from publisher.layers.tar import Member
from publisher.layers.tar_split import TarSplit

_LONGEST_CHAIN = 100
_LONGEST_SYMLINK = 4095
_MOST_DROPPED_XATTRS = 100
_OTHER_XATTRS = "xattr:(others)"
_EMPTY_SHA256 = hashlib.sha256().hexdigest()


class LayerBuilder:
    """Receives the members of one archive in order, and passes entries to a sink.

    `layer` is the name of the layer in errors. `content_size` counts the bytes of all files, of
    which `holes` are holes of sparse files. `dropped` counts what was not published, by kind.
    `tar_split` receives the places of contents that the tree has. `close` frees the ledger's memory
    and disk space.
    """

    def __init__(
        self, sink: TreeSink, policy: Policy, layer: str, tar_split: TarSplit | None = None
    ) -> None:
        self._sink = sink
        self._tar_split = tar_split
        self._policy = policy
        self._limits = policy.limits
        self._what = f"cannot unpack {layer}"
        self.content_size = 0
        self.holes = 0
        self.dropped: Counter[str] = Counter()
        self.ledger = Ledger(self._what, policy.limits, self._imply)
        self.ledger.record(self._imply(""))

    def close(self) -> None:
        """Free memory and disk space."""
        self.ledger.close()

    def add(self, member: Member) -> None:
        """Add `member` to the layer, record its deletion of lower entries, or drop it."""
        where = member.where
        path = safe_path(member.name, where, self._limits.path_bytes, self._limits.depth)
        meaning = reserved(path, where)
        if meaning is not None:
            if isinstance(meaning, Marker):
                self._add_marker(meaning)
            else:
                self.dropped[meaning] += 1
            return
        if not path and member.type is not EntryType.DIRECTORY:
            raise UnsafeName(str(where), why="it would replace the root directory")
        located = self.ledger.locate(path, create=True)
        assert located is not None
        match member.type:
            case EntryType.FILE:
                self._add_file(located, member, where)
            case EntryType.HARDLINK:
                self._add_link(located, member, where)
            case _:
                self._add_other(located, member, where)

    def finish(self) -> None:
        """Add the entries that depend on the whole archive, and complete the tree.

        The archive has been verified.
        """
        for path, target in self.ledger.unresolved():
            self._link_late(path, target)
        for entry in self.ledger.late():
            # Instead of a dropped device a whiteout is needed only if lower layers have the path,
            # and `fixups` then adds it. Otherwise overlayfs would list its name.
            if not (entry.type is EntryType.WHITEOUT and entry.dropped):
                self._sink.add(entry)
        self._sink.finish()

    def _add_marker(self, marker: Marker) -> None:
        """Record a whiteout, or that a directory is opaque.

        A marker below a link or file of this layer cannot concern lower layers, and is dropped.
        Nothing is deleted through a link.
        """
        parent = marker.parent
        if not self._is_plain_directory(parent):
            self.dropped["whiteout below a link or file"] += 1
            return
        # An opaque marker needs the directory itself: locating any name in it creates it.
        name = marker.hidden or "x"
        located = self.ledger.locate(f"{parent}/{name}" if parent else name, create=True)
        assert located is not None
        if marker.hidden is None:
            self.ledger.make_opaque(parent)
        else:
            self.ledger.white_out(located)

    def _is_plain_directory(self, path: str) -> bool:
        """Return whether neither `path` nor a parent is a link or file of this layer."""
        above = ""
        for name in path.split("/") if path else ():
            above = f"{above}/{name}" if above else name
            row = self.ledger.get(above)
            if row is None or row.is_marker:
                return True
            if row.type != EntryType.DIRECTORY:
                return False
        return True

    def _imply(self, path: str) -> Entry:
        """Add the directory `path`, for which the archive has no entry so far."""
        entry = self._policy.apply(Entry(path, EntryType.DIRECTORY, 0o755, implicit=True))
        self._sink.add(entry)
        return entry

    def _add_other(self, path: str, member: Member, where: Where) -> None:
        entry = self._policy.apply(_entry(path, member, where))
        if entry.dropped:
            self._count_dropped(entry)
        if entry.type is EntryType.WHITEOUT:
            self._drop_device(entry)
        else:
            self._sink.add(entry)
            self.ledger.record(entry)

    def _add_file(self, path: str, member: Member, where: Where) -> None:
        self._count_size(member, where)
        if self._tar_split is not None and member.size and member.content_at is not None:
            self._tar_split.file(path, member.content_at, member.size)
        content = member.content
        if isinstance(content, tuple):
            # A small file is in memory as a whole, so its digest is known before it is written.
            digest = hashlib.sha256(content[0]).hexdigest() if content else _EMPTY_SHA256
            entry = self._policy.apply(_entry(path, member, where, digest))
            self._sink.add(entry, content)
        else:
            hashed = ContentHash()
            pieces = _hashing(content, hashed.update)
            entry = self._policy.apply(_entry(path, member, where))
            self._sink.add(entry, pieces)
            for _ in pieces:  # the part that the sink did not read
                pass
            entry = replace(entry, sha256=hashed.hexdigest())
        if entry.dropped:
            self._count_dropped(entry)
        self.ledger.record(entry)

    def _count_size(self, member: Member, where: Where) -> None:
        """Count a file; raise LimitExceeded before it is written if it is too large."""
        self.content_size += member.size
        self.holes += member.holes
        limits = self._limits
        if self.content_size - self.holes > limits.layer_bytes:
            raise LimitExceeded(
                str(where),
                limit="layer_bytes",
                allowed=limits.layer_bytes,
                found=self.content_size - self.holes,
                why=f"the layer's files hold more than {limits.layer_bytes} bytes",
            )
        if self.content_size > limits.layer_apparent_bytes:
            raise LimitExceeded(
                str(where),
                limit="layer_apparent_bytes",
                allowed=limits.layer_apparent_bytes,
                found=self.content_size,
                why=f"the layer's files have more than {limits.layer_apparent_bytes} bytes, of "
                f"which {self.holes} are holes of sparse files",
            )

    def _count_dropped(self, entry: Entry) -> None:
        for what in entry.dropped:
            is_known = what in self.dropped or not what.startswith("xattr:")
            if not is_known and (
                len(self.dropped) >= _MOST_DROPPED_XATTRS or len(what) > MAX_COMPONENT_BYTES
            ):
                what = _OTHER_XATTRS
            self.dropped[what] += 1

    def _drop_device(self, entry: Entry) -> None:
        self._remove(entry.path)
        self.ledger.record(entry)

    def _remove(self, path: str) -> None:
        """Remove the entry that the sink has at `path`, if any. The tree will have none there."""
        row = self.ledger.get(path)
        if row is not None and row.type not in (EntryType.HARDLINK, EntryType.WHITEOUT):
            self._sink.add(Entry(path, EntryType.WHITEOUT, mode=0))

    def _add_link(self, path: str, member: Member, where: Where) -> None:
        target = self._link_target(member, where)
        if any(part.startswith(CVMFS_PREFIX) for part in target.split("/")):
            self.dropped["name:.cvmfs*"] += 1
            return
        target = self.ledger.locate(target, create=False) or target
        row = self.ledger.get(target)
        if target == path and row is not None:
            return  # a link to itself
        if not target or target.startswith(f"{path}/") or (row and row.type == "d"):
            raise LayerError(
                str(where), why=f"a hard link to the directory {shown(target)}, or into itself"
            )
        if row is not None and row.type == EntryType.HARDLINK:
            self._remember(path, (row.target or b"").decode("utf-8", "surrogateescape"))
        elif row is None or row.is_marker:
            self._remember(path, target)
        else:
            self._link(path, target, row)

    def _link_target(self, member: Member, where: Where) -> str:
        # As in containerd and umoci, ".." stops at the root of the image.
        what = f"{where}, link to {shown(member.target)}"
        limits = self._limits
        return safe_path(member.target, what, limits.path_bytes, limits.depth, stop_at_root=True)

    def _remember(self, path: str, target: str) -> None:
        """Record a link whose target this layer does not have so far."""
        self._remove(path)
        self.ledger.record(Entry(path, EntryType.HARDLINK, target=target, links=0))

    def _link(self, path: str, target: str, row: Row) -> None:
        """Add `path` as another name of the file at `target`."""
        if row.type == EntryType.WHITEOUT:  # a device node that policy dropped
            self.dropped["device"] += 1
            self._drop_device(Entry(path, EntryType.WHITEOUT, mode=0, dropped=("device",)))
            return
        self._sink.add(Entry(path, EntryType.HARDLINK, target=target))
        self.ledger.link(path, target, row)

    def _link_late(self, path: str, target: str) -> None:
        """Resolve a link whose target followed it, or record the end of a chain of such links."""
        chain, target, row = self._follow(path, target)
        if row is not None and row.type == EntryType.DIRECTORY:
            raise LayerError(
                f"{self._what}, entry {shown(path)}",
                why=f"a hard link to the directory {shown(target)}",
            )
        for name in chain:
            if row is None or row.is_marker or row.type == EntryType.HARDLINK:
                self._remember(name, target)
            else:
                # The first additional name changes the row.
                self._link(name, target, self.ledger.get(target) or row)

    def _follow(self, path: str, target: str) -> tuple[list[str], str, Row | None]:
        """Follow a chain of hard links; return their names, the last target, and its row."""
        chain = [path]
        while True:
            target = self.ledger.locate(target, create=False) or target
            row = self.ledger.get(target)
            if row is None or row.type != EntryType.HARDLINK or target in chain:
                return chain, target, row
            chain.append(target)
            target = (row.target or b"").decode("utf-8", "surrogateescape")
            if len(chain) > _LONGEST_CHAIN:
                raise LayerError(
                    f"{self._what}, entry {shown(path)}", why="a chain of hard links is too long"
                )


def _entry(path: str, member: Member, where: Where, sha256: str = "") -> Entry:
    target = ""
    if member.type is EntryType.SYMLINK:
        if not member.target or b"\0" in member.target:
            raise UnsafeName(
                str(where), why="a symlink without a target, or with a zero byte in it"
            )
        if len(member.target) > _LONGEST_SYMLINK:
            raise LimitExceeded(
                str(where),
                limit="symlink_bytes",
                allowed=_LONGEST_SYMLINK,
                found=len(member.target),
                why=f"a symlink's target is longer than {_LONGEST_SYMLINK} bytes",
            )
        target = member.target.decode("utf-8", "surrogateescape")
    return Entry(
        path,
        member.type,
        member.mode,
        member.uid,
        member.gid,
        member.size,
        member.mtime_ns,
        target,
        sha256,
        member.device,
        member.xattrs,
    )


def _hashing(
    pieces: Content, update: Callable[[bytes | memoryview | Hole], object]
) -> Iterator[bytes | memoryview | Hole]:
    for piece in pieces:
        update(piece)
        yield piece
