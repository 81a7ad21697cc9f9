"""Layer indexes -> a flat image. Pure: entries in, entries out, in one streaming pass.

The result is what the kernel's overlayfs shows when it mounts the layer trees on each other.
Source: OCI image layer specification 1.1, "Applying Changesets".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from publisher.entry import Entry, EntryType, Merged
from publisher.layers.links import Links, as_file, lower_links
from publisher.layers.side_by_side import by_path


def merge(indexes: Sequence[Iterable[Entry]]) -> Iterator[Merged]:
    """The flat image of the layers whose `indexes` these are, from bottom to top.

    Sorted component-wise, parents before children. Indexes must be sorted likewise, and are read
    twice if one of them has hard links to files of lower layers. Memory does not grow with the
    number of entries, but with that of files whose names (hard links) lie far apart. Raises
    LayerError for a hard link whose target no layer has.
    """
    return _merge(indexes, lower_links(indexes))


@dataclass(slots=True)
class _HardLinks:
    """Which names of the flat image share an inode of a layer tree.

    `heads` maps a file of a layer, by the first of its names there, to its first name in the flat
    image. `shared` are the files that names in higher layers link to.
    """

    shared: frozenset[tuple[int, str]]
    heads: dict[tuple[int, str], str] = field(default_factory=dict)

    def place(self, file: Merged, inode: tuple[int, str], path: str) -> Merged:
        head = self.heads.setdefault(inode, path)
        entry = as_file(file.entry, path)
        if head != path and entry.type is EntryType.FILE:
            entry = replace(entry, type=EntryType.HARDLINK, target=head)
        return Merged(entry, file.layer, file.source)


def _merge(indexes: Sequence[Iterable[Entry]], links: Links) -> Iterator[Merged]:
    hard_links = _HardLinks(frozenset((link.layer, link.source) for link in links.values()))
    nothing = len(indexes)
    # For each directory on the way down: its key as a prefix, and the lowest layer showing in it.
    above: list[tuple[bytes, int]] = [(b"", 0)]
    for key, group in by_path(indexes):
        while not key.startswith(above[-1][0]):
            above.pop()
        lowest = above[-1][1]
        visible = [pair for pair in group if pair[0] >= lowest] if lowest else group
        if not visible:
            continue
        number, entry = visible[-1]
        if entry.type is EntryType.DIRECTORY:
            number, entry, lowest = _merge_directory(visible, lowest)
            above.append((key + b"\0" if key else b"", lowest))
            yield Merged(entry, number, entry.path)
            continue
        if len(visible) > 1:
            above.append((key + b"\0", nothing))
        if entry.type is not EntryType.WHITEOUT:
            yield _place(entry, number, hard_links, links)


def _merge_directory(visible: Sequence[tuple[int, Entry]], lowest: int) -> tuple[int, Entry, int]:
    """(layer, entry) that give the merged directory its metadata, and the lowest layer in it."""
    described: tuple[int, Entry] | None = None
    is_opaque = False
    for number, entry in reversed(visible):
        if entry.type is not EntryType.DIRECTORY:
            lowest = lowest if is_opaque else number + 1
            break
        if described is None and not entry.implicit:
            described = number, entry
        if entry.opaque and not is_opaque:
            is_opaque, lowest = True, number
        if is_opaque and described is not None:
            break
    number, entry = described or visible[-1]
    return number, replace(entry, opaque=False) if entry.opaque else entry, lowest


def _place(entry: Entry, layer: int, hard_links: _HardLinks, links: Links) -> Merged:
    path = entry.path
    if entry.type is EntryType.HARDLINK:
        if entry.is_unresolved:
            link = links[layer, path]
            return hard_links.place(link, (link.layer, link.source), path)
        return hard_links.place(Merged(entry, layer, path), (layer, entry.target), path)
    has_names = entry.links > 1 and entry.type is EntryType.FILE
    if has_names or (layer, path) in hard_links.shared:
        return hard_links.place(Merged(entry, layer, path), (layer, path), path)
    return Merged(entry, layer, path)
