"""Merge only a few paths of the layers of an image, in a fraction of the time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from publisher.entry import Merged
from publisher.layers.index import LayerIndex
from publisher.layers.merge import merge


def merged_at(indexes: Sequence[LayerIndex], paths: Collection[str]) -> Iterator[Merged]:
    """Return the entries of an image at `paths`, and what they depend on; or all of its entries.

    They depend on the directories above them. This takes a fraction of the time of merging all
    entries, which is only done if one at `paths` is a link to a file of a lower layer.
    """
    needed = {above for path in paths for above in _with_parents(path)}
    parts = [index.find(needed) for index in indexes]
    if any(entry.is_unresolved for part in parts for entry in part):
        return merge(indexes)
    return merge(parts)


def _with_parents(path: str) -> Iterator[str]:
    """Yield `path`, and every directory above it."""
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield ""
