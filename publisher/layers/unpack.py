"""A layer blob -> a tree and an index. The story of one layer, from its first byte to its last."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import BinaryIO

from publisher.entry import Content, Entry, EntryType, Hole, TreeSink
from publisher.layers.blob import BlobReader
from publisher.layers.content import ContentHash
from publisher.layers.errors import LayerError, LimitExceeded, UnsafeName
from publisher.layers.index import IndexHeader, write_index
from publisher.layers.ledger import Ledger, Row
from publisher.layers.names import (
    AUFS_PREFIX,
    CVMFS_PREFIX,
    MAX_COMPONENT_BYTES,
    OPAQUE_MARKER,
    WHITEOUT_PREFIX,
    Where,
    safe_path,
    shown,
)
from publisher.layers.policy import Policy
from publisher.layers.stream import ArchiveStream
from publisher.layers.tar import Member, members
from publisher.layers.temporary import temporary_databases
from publisher.oci.descriptor import Descriptor
from publisher.oci.media_types import FOREIGN_LAYER_TYPES, LAYER_TYPES

_LONGEST_CHAIN = 100
_MOST_DROPPED_XATTRS = 100
_OTHER_XATTRS = "xattr:(others)"
_EMPTY_SHA256 = hashlib.sha256().hexdigest()


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """What a layer turned out to hold. Sizes are in bytes; `content_size` is that of all files, of
    which `holes` take no space.

    `dropped` counts what policy took away, by what it was; of extended attributes, of which an
    archive may invent any number, only the first hundred names each for themselves.
    """

    digest: str
    diff_id: str
    size: int
    archive_size: int
    entries: int
    files: int
    directories: int
    symlinks: int
    whiteouts: int
    content_size: int
    holes: int
    unresolved: int
    dropped: Mapping[str, int]


def unpack(
    chunks: Iterable[bytes],
    descriptor: Descriptor,
    diff_id: str,
    sink: TreeSink,
    index: BinaryIO,
    policy: Policy,
    progress: Callable[[int], None] | None = None,
) -> LayerSummary:
    """Unpack the blob `chunks` into `sink`, and write its layer index to `index`.

    `sink.finish` is called, and the index written, only once blob digest, size and diff ID were
    found right. No more than `descriptor.size` bytes are taken from `chunks`, which is iterated
    over in another thread, as is `progress` called (with the size of each chunk).

    Raises DigestMismatch; LayerError, naming the entry, for a malformed or hostile layer; and
    whatever `chunks` and `sink` raise. What `sink` then holds must be thrown away.
    """
    layer = f"layer {descriptor.digest}"
    if descriptor.media_type not in LAYER_TYPES | FOREIGN_LAYER_TYPES:
        raise LayerError(
            f"cannot unpack {layer}", why=f"its media type is {descriptor.media_type!r}"
        )
    limits = policy.limits
    with (
        BlobReader(chunks, descriptor, diff_id, limits.layer_bytes, progress) as blob,
        temporary_databases(f"cannot unpack {layer}"),
        closing(_Unpacker(sink, policy, layer)) as unpacker,
    ):
        try:
            stream = ArchiveStream(blob.blocks())
            for member in members(stream, layer, limits.header_bytes):
                unpacker.take(member)
        except LimitExceeded:
            raise
        except LayerError:
            # What seems malformed may be damaged: then `drain` raises DigestMismatch instead.
            blob.drain()
            raise
        unpacker.finish()
        summary = unpacker.summary(descriptor, diff_id, blob.archive_bytes)
        write_index(index, _header(summary, policy), unpacker.ledger.lines())
        return summary


class _Unpacker:
    """Takes the members of one archive, in their order."""

    def __init__(self, sink: TreeSink, policy: Policy, layer: str) -> None:
        self._sink = sink
        self._policy = policy
        self._limits = policy.limits
        self._layer = layer
        self._what = f"cannot unpack {layer}"
        self._content_size = 0
        self._holes = 0
        self._dropped: Counter[str] = Counter()
        self.ledger = Ledger(self._what, policy.limits, self._imply)
        self.ledger.record(self._imply(""))

    def close(self) -> None:
        """Free memory and disk space."""
        self.ledger.close()

    def take(self, member: Member) -> None:
        """Make of `member` whatever it should become."""
        where = Where(self._layer, member.name)
        path = self._safe_path(member.name, where)
        if ".wh." in path or CVMFS_PREFIX in path:
            kept = self._without_reserved(path, where)
            if kept is None:
                return
            path = kept
        if not path and member.type is not EntryType.DIRECTORY:
            raise UnsafeName(str(where), why="it would replace the root directory")
        located = self.ledger.locate(path, create=True)
        assert located is not None
        match member.type:
            case EntryType.FILE:
                self._take_file(located, member, where)
            case EntryType.HARDLINK:
                self._take_link(located, member, where)
            case _:
                self._add(self._policy.apply(_entry(located, member, where)))

    def finish(self) -> None:
        """Do what can only be done once the whole archive is known, and found to be genuine."""
        for path, target in self.ledger.unresolved():
            self._link_late(path, target)
        for entry in self.ledger.late():
            # In place of a dropped device a whiteout is needed only above something that lower
            # layers have; `fixups` adds it there. Elsewhere overlayfs would list its name.
            if not (entry.type is EntryType.WHITEOUT and entry.dropped):
                self._sink.add(entry)
        self._sink.finish()

    def summary(self, descriptor: Descriptor, diff_id: str, archive_size: int) -> LayerSummary:
        """What was there."""
        counts = self.ledger.count()
        return LayerSummary(
            digest=descriptor.digest,
            diff_id=diff_id,
            size=descriptor.size,
            archive_size=archive_size,
            entries=self.ledger.entries,
            files=counts[EntryType.FILE],
            directories=counts[EntryType.DIRECTORY],
            symlinks=counts[EntryType.SYMLINK],
            whiteouts=counts[EntryType.WHITEOUT],
            content_size=self._content_size,
            holes=self._holes,
            unresolved=counts[EntryType.HARDLINK],
            dropped=dict(sorted(self._dropped.items())),
        )

    def _safe_path(self, name: bytes, where: object) -> str:
        return safe_path(name, where, self._limits.path_bytes, self._limits.depth)

    def _without_reserved(self, path: str, where: Where) -> str | None:
        """Obey markers and drop names that only others understand; None if `path` is dealt with."""
        *parents, name = path.split("/")
        if any(part.startswith(CVMFS_PREFIX) for part in (*parents, name)):
            self._dropped["name:.cvmfs*"] += 1
            return None
        aufs = any(part.startswith(AUFS_PREFIX) for part in parents)
        if aufs or (name.startswith(AUFS_PREFIX) and name != OPAQUE_MARKER):
            self._dropped["name:.wh..wh.*"] += 1
            return None
        if any(parent.startswith(WHITEOUT_PREFIX) for parent in parents):
            # Other tools make the directory `.wh.x`. In a published tree, some runtimes would take
            # it for a whiteout again.
            self._dropped["name:.wh.*"] += 1
            return None
        if not name.startswith(WHITEOUT_PREFIX):
            return path
        hidden = name.removeprefix(WHITEOUT_PREFIX)
        if name != OPAQUE_MARKER and hidden in ("", ".", ".."):
            raise UnsafeName(str(where), why="a whiteout has to name something")
        if hidden.startswith(CVMFS_PREFIX):  # no layer can have it
            self._dropped["name:.cvmfs*"] += 1
            return None
        self._take_marker("/".join(parents), None if name == OPAQUE_MARKER else hidden, where)
        return None

    def _take_marker(self, parent: str, hidden: str | None, where: Where) -> None:
        """Note a whiteout of `hidden`, or (None) that `parent` is opaque.

        A marker below something that this layer itself made a link or a file can mean nothing in
        the layers below, and is dropped: never is anything deleted through a link.
        """
        if not self._is_plain_directory(parent):
            self._dropped["whiteout below a link or file"] += 1
            return
        # Any name will do: what matters is that the parent exists afterwards.
        located = self.ledger.locate(f"{parent}/{hidden or 'x'}" if parent else hidden or "x", True)
        assert located is not None
        if hidden is None:
            self.ledger.make_opaque(parent)
        else:
            self.ledger.white_out(located)

    def _is_plain_directory(self, path: str) -> bool:
        """Whether neither `path` nor a parent of it is, in this layer, something else."""
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
        entry = self._policy.apply(Entry(path, EntryType.DIRECTORY, 0o755, implicit=True))
        self._sink.add(entry)
        return entry

    def _count_dropped(self, entry: Entry) -> None:
        for what in entry.dropped:
            is_known = what in self._dropped or not what.startswith("xattr:")
            if not is_known and (
                len(self._dropped) >= _MOST_DROPPED_XATTRS or len(what) > MAX_COMPONENT_BYTES
            ):
                what = _OTHER_XATTRS
            self._dropped[what] += 1

    def _add(self, entry: Entry) -> None:
        if entry.dropped:
            self._count_dropped(entry)
        if entry.type is not EntryType.WHITEOUT:
            self._sink.add(entry)
            self.ledger.record(entry)
        else:
            self._drop_device(entry)

    def _drop_device(self, entry: Entry) -> None:
        self._take_away(entry.path)
        self.ledger.record(entry)

    def _take_away(self, path: str) -> None:
        """Have the sink forget what it has at `path`, where nothing of its own will be."""
        row = self.ledger.get(path)
        if row is not None and row.type not in (EntryType.HARDLINK, EntryType.WHITEOUT):
            self._sink.add(Entry(path, EntryType.WHITEOUT, mode=0))

    def _take_file(self, path: str, member: Member, where: Where) -> None:
        self._content_size += member.size
        self._holes += member.holes
        self._check_size(where)
        content = member.content
        digest = ""
        if isinstance(content, tuple):
            digest = hashlib.sha256(content[0]).hexdigest() if content else _EMPTY_SHA256
        entry = self._policy.apply(_entry(path, member, where, digest))
        if entry.dropped:
            self._count_dropped(entry)
        if digest:
            self._sink.add(entry, content)
        else:
            hashed = ContentHash()
            pieces = _hashing(content, hashed.update)
            self._sink.add(entry, pieces)
            for _ in pieces:  # what the sink did not use
                pass
            entry = replace(entry, sha256=hashed.hexdigest())
        self.ledger.record(entry)

    def _check_size(self, where: Where) -> None:
        """Refuse a file before it is written; BlobReader counts what has arrived."""
        limits = self._limits
        if self._content_size - self._holes > limits.layer_bytes:
            raise LimitExceeded(
                str(where), why=f"the layer's files hold more than {limits.layer_bytes} bytes"
            )
        if self._content_size > limits.layer_apparent_bytes:
            raise LimitExceeded(
                str(where),
                why=f"the layer's files have more than {limits.layer_apparent_bytes} bytes, of "
                f"which {self._holes} are holes of sparse files",
            )

    def _take_link(self, path: str, member: Member, where: Where) -> None:
        target = safe_path(
            member.target,
            f"{where}, link to {shown(member.target)}",
            self._limits.path_bytes,
            self._limits.depth,
            stop_at_root=True,
        )
        if any(part.startswith(CVMFS_PREFIX) for part in target.split("/")):
            self._dropped["name:.cvmfs*"] += 1
            return
        target = self.ledger.locate(target, create=False) or target
        row = self.ledger.get(target)
        if target == path and row is not None:
            return
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

    def _remember(self, path: str, target: str) -> None:
        """Note a link whose target is not (yet) in this layer."""
        self._take_away(path)
        self.ledger.record(Entry(path, EntryType.HARDLINK, target=target, links=0))

    def _link(self, path: str, target: str, row: Row) -> None:
        if row.type == EntryType.WHITEOUT:  # another name of a device node that policy dropped
            self._dropped["device"] += 1
            self._drop_device(Entry(path, EntryType.WHITEOUT, mode=0, dropped=("device",)))
            return
        self._sink.add(Entry(path, EntryType.HARDLINK, target=target))
        self.ledger.link(path, target, row)

    def _link_late(self, path: str, target: str) -> None:
        """Link a name whose target came after it; or note where a chain of such links ends."""
        chain = [path]
        while True:
            target = self.ledger.locate(target, create=False) or target
            row = self.ledger.get(target)
            if row is None or row.type != EntryType.HARDLINK or target in chain:
                break
            chain.append(target)
            target = (row.target or b"").decode("utf-8", "surrogateescape")
            if len(chain) > _LONGEST_CHAIN:
                raise LayerError(
                    f"{self._what}, entry {shown(path)}", why="a chain of hard links is endless"
                )
        if row is not None and row.type == EntryType.DIRECTORY:
            raise LayerError(
                f"{self._what}, entry {shown(path)}",
                why=f"a hard link to the directory {shown(target)}",
            )
        for name in chain:
            if row is None or row.is_marker or row.type == EntryType.HARDLINK:
                self._remember(name, target)
            else:
                self._link(name, target, self.ledger.get(target) or row)


def _entry(path: str, member: Member, where: Where, sha256: str = "") -> Entry:
    target = ""
    if member.type is EntryType.SYMLINK:
        if not member.target or b"\0" in member.target:
            raise UnsafeName(
                str(where), why="a symlink without a target, or with a zero byte in it"
            )
        if len(member.target) >= 4096:
            raise LimitExceeded(str(where), why="a symlink's target is longer than 4095 bytes")
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


def _header(summary: LayerSummary, policy: Policy) -> IndexHeader:
    described = asdict(policy)
    del described["limits"]
    return IndexHeader(
        digest=summary.digest,
        diff_id=summary.diff_id,
        size=summary.size,
        archive_size=summary.archive_size,
        entries=summary.entries,
        content_size=summary.content_size,
        holes=summary.holes,
        unresolved=summary.unresolved,
        dropped=summary.dropped,
        policy=described,
    )
