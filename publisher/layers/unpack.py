"""Unpack a layer blob into a tree and an index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict
from typing import BinaryIO

from publisher.entry import EntryType, TreeSink
from publisher.layers.blob import BlobReader, checked
from publisher.layers.builder import LayerBuilder
from publisher.layers.errors import LayerError, LimitExceeded
from publisher.layers.index import IndexHeader, write_index
from publisher.layers.kept_contents import ContentsWriter
from publisher.layers.policy import Policy
from publisher.layers.stream import ArchiveStream
from publisher.layers.tar import members
from publisher.layers.tar_split import TarSplit
from publisher.layers.temporary import temporary_databases
from publisher.lazy import dataclass
from publisher.oci.descriptor import Descriptor
from publisher.oci.media_types import FOREIGN_LAYER_TYPES, LAYER_TYPES


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """The summary of a layer. Sizes are in bytes.

    `content_size` is the size of all files together, of which `holes` take no space. `unresolved`
    counts hard links whose target is in a lower layer. `dropped` counts what policy removed, by
    kind. Extended attributes are counted by name for the first hundred names only, since an archive
    may have any number of names.
    """

    digest: str
    diff_id: str
    size: int
    archive_size: int
    entries: int
    files: int
    directories: int
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
    tar_split: BinaryIO | None = None,
    is_checked: bool = False,
    kept: ContentsWriter | None = None,
) -> LayerSummary:
    """Unpack a blob into `sink`, and write its layer index to `index`.

    Digest, size and diff ID of the blob are verified before `sink.finish` is called and the index
    is written. After an error, the tree of `sink` must be discarded.

    Args:
        chunks: The blob. Another thread reads it, up to `descriptor.size` bytes.
        descriptor: The layer in the manifest.
        diff_id: The digest of the uncompressed archive, from the image's config.
        sink: Receives the entries.
        index: Receives the layer index.
        policy: The properties that are published, and the limits.
        tar_split: Receives the layer's tar-split data. It is left empty if the archive cannot be
            assembled from the tree, because a member replaces a file of an earlier one.
        is_checked: Another process checks size and digest of `chunks` while it sends them, and
            discards the result if they do not match.
        kept: Learns the order of the contents that `sink` has given to it.

    Raises:
        DigestMismatch: The blob does not have the digest of `descriptor`, or not `diff_id`.
        LimitExceeded: The layer exceeds a limit of the policy.
        LayerError: The layer is malformed or unsafe (the message names the entry), or the list of
            its entries cannot be stored.
        Exception: Whatever `chunks` and `sink` raise.
    """
    layer = f"layer {descriptor.digest}"
    if descriptor.media_type not in LAYER_TYPES | FOREIGN_LAYER_TYPES:
        raise LayerError(
            f"cannot unpack {layer}", why=f"its media type is {descriptor.media_type!r}"
        )
    limits = policy.limits
    split = TarSplit(tar_split) if tar_split is not None else None
    if not is_checked:
        chunks = checked(chunks, descriptor)
    with (
        BlobReader(chunks, layer, diff_id, limits.layer_bytes) as blob,
        temporary_databases(f"cannot unpack {layer}"),
        closing(LayerBuilder(sink, policy, layer, split)) as builder,
    ):
        blocks = split.blocks(blob.blocks()) if split else blob.blocks()
        try:
            for member in members(ArchiveStream(blocks), layer, limits.header_bytes):
                builder.add(member)
        except LimitExceeded:
            raise
        except LayerError:
            # If the blob is damaged, `drain` raises DigestMismatch instead of this error.
            blob.drain()
            raise
        builder.finish()
        if split:
            split.finish(exact=not builder.ledger.lost_files)
        summary = _summary(builder, descriptor, diff_id, blob.archive_bytes)
        lines = builder.ledger.lines()
        if kept is not None:
            lines = kept.in_order(lines)
        write_index(index, index_header(summary, policy), lines)
        return summary


def _summary(
    builder: LayerBuilder, descriptor: Descriptor, diff_id: str, archive_size: int
) -> LayerSummary:
    counts = builder.ledger.count()
    # A file that another member replaced was counted when it was unpacked.
    lost = builder.ledger.lost_files
    content_size = builder.ledger.content_size() if lost else builder.content_size
    return LayerSummary(
        digest=descriptor.digest,
        diff_id=diff_id,
        size=descriptor.size,
        archive_size=archive_size,
        entries=builder.ledger.entries,
        files=counts[EntryType.FILE],
        directories=counts[EntryType.DIRECTORY],
        whiteouts=counts[EntryType.WHITEOUT],
        content_size=content_size,
        holes=min(builder.holes, content_size),
        unresolved=counts[EntryType.HARDLINK],
        dropped=dict(sorted(builder.dropped.items())),
    )


def index_header(summary: LayerSummary, policy: Policy) -> IndexHeader:
    """Return the header of the index of a layer that was unpacked by `policy`."""
    described = {key: value for key, value in asdict(policy).items() if key != "writable" or value}
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
        files=summary.files + summary.unresolved,
        dropped=summary.dropped,
        policy=described,
    )
