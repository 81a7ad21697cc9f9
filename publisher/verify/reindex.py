"""A layer index made from the layer's tree, where the one made from its blob is lost."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from publisher.entry import Entry, EntryType
from publisher.errors import PublisherError
from publisher.layers.index import IndexHeader, encode_entry, write_index
from publisher.oci.descriptor import Descriptor
from publisher.repository import Repository
from publisher.tree import layout
from publisher.verify.published_layers import DERIVED

_MARKER = ".wh."


def index_from_tree(repository: Repository, layer: Descriptor, diff_id: str) -> bytes:
    """The index of a published layer, with the digests of what its tree holds now.

    Whether that is what the blob held cannot be told without the blob; the index says where it
    comes from. PublisherError where the tree is not one that this publisher would have made, or
    has things in it that no index can describe.
    """
    # Two passes, since the header comes first: counting costs no reading of contents.
    entries = 0
    size = 0
    for found in repository.walk(layout.layer_tree(layer.digest)):
        _check(layer, found.entry)
        entries += 1
        size += found.entry.size
    header = IndexHeader(
        digest=layer.digest,
        diff_id=diff_id,
        size=layer.size,
        archive_size=0,
        entries=entries,
        content_size=size,
        policy={DERIVED: "tree"},
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
        )


def _entries(repository: Repository, layer: Descriptor) -> Iterator[Entry]:
    """What is in the tree, as an index has it: hard links name the first path of their file."""
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
