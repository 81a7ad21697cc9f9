"""Merge layer indexes into a flat image, in one streaming pass. Pure.

The result is the tree that the kernel's overlayfs shows when it mounts the layer trees.
Source: OCI image layer specification 1.1, "Applying Changesets".

At each path the entry of the highest layer is visible, with two exceptions: directories of several
layers are merged; and a layer that hides a directory of lower layers hides everything in it. Paths
are sorted with parents before children, so that the directories above a path determine what is
hidden there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field, replace

from publisher.entry import Entry, EntryType, Merged
from publisher.layers.index_lines import decode_entry
from publisher.layers.links import Links, as_file, lower_link, lower_links
from publisher.layers.side_by_side import Group, by_path
from publisher.lazy import dataclass


def merge(
    indexes: Sequence[Iterable[Entry]], decode: Callable[[str], Entry] = decode_entry
) -> Iterator[Merged]:
    """Merge the layers with these `indexes`, from bottom to top, into a flat image.

    Memory does not grow with the number of entries or layers, but with the number of files that
    have several names (hard links).

    Args:
        indexes: Each sorted component-wise. They are read twice if one has hard links to files of
            lower layers.
        decode: Decodes a line of an index.

    Returns:
        The entries of the flat image, sorted component-wise, parents before children.

    Raises:
        LayerError: An index is damaged, or a hard link's target is in no layer. It is raised while
            the result is iterated.
    """
    return _merge(indexes, lower_links(indexes), decode)


@dataclass(slots=True)
class _HardLinks:
    """The names of the flat image that share an inode of a layer tree.

    An inode is identified by its layer and its first name there. `heads` maps it to its first name
    in the flat image, which becomes the file; later names become hard links to that. (The first
    name of the layer may be hidden in the flat image, so that the two differ.) `shared` are the
    files that names in higher layers link to.
    """

    shared: frozenset[tuple[int, str]]
    heads: dict[tuple[int, str], str] = field(default_factory=dict)

    def place(self, file: Merged, inode: tuple[int, str], path: str) -> Merged:
        """Return the entry of the flat image for the name `path` of `inode`."""
        head = self.heads.setdefault(inode, path)
        entry = as_file(file.entry, path)
        if head != path and entry.type is EntryType.FILE:
            entry = replace(entry, type=EntryType.HARDLINK, target=head)
        return Merged(entry, file.layer, file.source)


def _merge(
    indexes: Sequence[Iterable[Entry]], links: Links, decode: Callable[[str], Entry]
) -> Iterator[Merged]:
    hard_links = _HardLinks(frozenset((link.layer, link.source) for link in links.values()))
    nothing = len(indexes)
    # For each directory above the current path: its sort key as a prefix, and the lowest layer that
    # is visible in it. Layers below that one are hidden, because a higher layer's directory is
    # opaque, or a higher layer has another entry there. If the lowest is `nothing`, all layers are
    # hidden: the path is not a directory in the flat image.
    above: list[tuple[bytes, int]] = [(b"", 0)]
    for key, group in by_path(indexes, decode=decode):
        while not key.startswith(above[-1][0]):
            above.pop()
        lowest = above[-1][1]
        visible = _from_layer(lowest, group) if lowest else group
        if not visible:
            continue
        number, entry = visible[-1]
        if entry.type is EntryType.DIRECTORY:
            number, entry, lowest = _merge_directory(visible, lowest)
            above.append((key + b"\0" if key else b"", lowest))
            yield Merged(entry, number, entry.path)
            continue
        if len(visible) > 1:
            # A lower layer may have a directory here, which is hidden.
            above.append((key + b"\0", nothing))
        if entry.type is not EntryType.WHITEOUT:
            yield _place(entry, number, hard_links, links)


def _from_layer(lowest: int, group: Group) -> Group:
    """Return what `lowest` and the layers on top of it have at a path."""
    return [pair for pair in group if pair[0] >= lowest]


def _merge_directory(visible: Group, lowest: int) -> tuple[int, Entry, int]:
    """Merge directories at one path, of which the topmost entry of `visible` is one.

    Returns the layer and the entry with the metadata of the merged directory, and the lowest layer
    that is visible in it. The metadata are those of the highest layer whose archive has an entry
    for the directory, also below an opaque directory (which its archive may only imply), but not
    below a layer that has another kind of entry here.
    """
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
    """Return the merged entry of something that is not a directory."""
    path = entry.path
    if entry.type is EntryType.HARDLINK:
        if entry.is_unresolved:
            link = lower_link(links, layer, path)
            return hard_links.place(link, (link.layer, link.source), path)
        return hard_links.place(Merged(entry, layer, path), (layer, entry.target), path)
    has_names = entry.links > 1 and entry.type is EntryType.FILE
    if has_names or (layer, path) in hard_links.shared:
        return hard_links.place(Merged(entry, layer, path), (layer, path), path)
    return Merged(entry, layer, path)
