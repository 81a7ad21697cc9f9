"""Resolve hard links of a layer whose target is in a lower layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from publisher.entry import Entry, EntryType, Merged, sort_key
from publisher.layers.errors import LayerError
from publisher.layers.index import LayerIndex
from publisher.layers.names import shown
from publisher.layers.side_by_side import Descent, by_path

Links = Mapping[tuple[int, str], Merged]
"""Maps a hard link, by the number of its layer and its path, to its file."""


def lower_links(indexes: Sequence[Iterable[Entry]]) -> Links:
    """Resolve all hard links of these layers whose target is not in their own layer.

    If there are such links, the indexes are read once, and the links are kept in memory. Raises
    LayerError for a link whose target is missing in the layers below, or is a directory.
    """
    unresolved = [
        (number, entry)
        for number, index in enumerate(indexes)
        if not isinstance(index, LayerIndex) or index.header.unresolved
        for entry in index
        if entry.is_unresolved
    ]
    if not unresolved:
        return {}
    targets = _visible(indexes, [(number, entry.target) for number, entry in unresolved])
    links: dict[tuple[int, str], Merged] = {}
    for number, entry in unresolved:  # from bottom to top, since a target can be such a link itself
        layer, target = targets.get((number, entry.target), (number, None))
        if target is None or target.type in (EntryType.DIRECTORY, EntryType.WHITEOUT):
            raise LayerError(
                f"cannot merge layer {number + 1}, entry {shown(entry.path)}",
                why=f"it is a hard link to {shown(entry.target)}, which neither this layer "
                "nor those below it have",
            )
        if target.is_unresolved:
            links[number, entry.path] = links[layer, target.path]
        else:
            links[number, entry.path] = Merged(target, layer, target.path)
    return links


def lower_link(links: Links, number: int, path: str) -> Merged:
    """Return the file of the hard link `path` of a layer, which `lower_links` has resolved.

    Raises LayerError if the header of the layer's index counted no such links.
    """
    link = links.get((number, path))
    if link is None:
        raise LayerError(
            f"cannot merge layer {number + 1}, entry {shown(path)}",
            why="it is a hard link to a lower layer, and the layer's index counts none",
            hint="publisher verify --deep --repair makes damaged indexes again",
        )
    return link


def as_file(entry: Entry, path: str) -> Entry:
    """Return `entry` under the name `path`, and as a file if it is a further name of one."""
    if entry.type is EntryType.HARDLINK:
        return replace(entry, path=path, type=EntryType.FILE, target="", links=1)
    return entry if entry.path == path else replace(entry, path=path)


def _visible(
    indexes: Sequence[Iterable[Entry]], questions: Sequence[tuple[int, str]]
) -> Mapping[tuple[int, str], tuple[int, Entry]]:
    """Return (layer, entry) of the visible entry below each given pair of layer and path."""
    layers_by_key: dict[bytes, set[int]] = {}
    for number, path in questions:
        layers_by_key.setdefault(sort_key(path), set()).add(number)
    answers: dict[tuple[int, str], tuple[int, Entry]] = {}
    descent = Descent()
    highest = max(number for number, _ in questions)
    for key, group in by_path(indexes[:highest], max(layers_by_key)):
        level = descent.to(key)
        for number in layers_by_key.get(key, ()):
            found = level.visible_below(group, number)
            if found is not None:
                answers[number, found[1].path] = found
        descent.enter(key, group)
    return answers
