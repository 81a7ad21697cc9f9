"""Make a layer index from the layer's tree if the one made from its blob is missing."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from publisher.entry import Entry, EntryType
from publisher.errors import PublisherError
from publisher.layers.index import IndexHeader, write_index
from publisher.layers.index_lines import encode_entry
from publisher.oci.descriptor import Descriptor
from publisher.repository import Repository
from publisher.tree import layout
from publisher.verify.published_layers import DERIVED

_MARKER = ".wh."


def index_from_tree(repository: Repository, layer: Descriptor, diff_id: str) -> bytes:
    """Return the index of a published layer, with the digests of the files in its tree.

    These cannot be compared with the blob, which a mark in the index's policy records.

    Args:
        repository: Opened for reading or writing.
        layer: The layer's descriptor in a manifest.
        diff_id: The layer's diff ID in the image's config.

    Raises:
        PublisherError: The tree has whiteouts in another tool's form.
    """
    # There are two passes, since the counts are in the header; the first reads no contents.
    entries = files = size = 0
    for found in repository.walk(layout.layer_tree(layer.digest)):
        _check(layer, found.entry)
        entries += 1
        files += found.entry.type is EntryType.FILE
        size += found.entry.size
    header = IndexHeader(
        digest=layer.digest,
        diff_id=diff_id,
        size=layer.size,
        archive_size=0,
        entries=entries,
        content_size=size,
        policy={DERIVED: "tree"},
        files=files,
    )
    file = io.BytesIO()
    write_index(file, header, (encode_entry(entry) for entry in _entries(repository, layer)))
    return file.getvalue()


def _check(layer: Descriptor, entry: Entry) -> None:
    name = entry.path.rpartition("/")[2]
    if name.startswith(_MARKER):
        raise PublisherError(
            f"cannot make an index of layer {layer.digest} from its tree",
            why=f"{entry.path!r} is a whiteout in another tool's form",
            hint="publisher verify --refetch",
        )


def _entries(repository: Repository, layer: Descriptor) -> Iterator[Entry]:
    """Yield the tree's entries as in an index: a hard link names the first path of its file."""
    tree = layout.layer_tree(layer.digest)
    names: Counter[object] = Counter()
    for found in repository.walk(tree):
        if found.entry.type is EntryType.FILE and found.entry.links > 1:
            names[found.identity] += 1
    first: dict[object, str] = {}
    for found in repository.walk(tree):
        entry = replace(found.entry, links=1)
        if entry.type is EntryType.WHITEOUT:
            yield Entry(entry.path, EntryType.WHITEOUT)
        elif entry.type is EntryType.FILE:
            count = names.get(found.identity, 1)
            entry = replace(entry, sha256=found.sha256(), links=count)
            if count > 1:
                head = first.setdefault(found.identity, entry.path)
                if head != entry.path:
                    entry = replace(entry, type=EntryType.HARDLINK, target=head)
            yield entry
        else:
            yield entry
