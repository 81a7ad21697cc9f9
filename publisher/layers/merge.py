"""Layer indexes -> a flat image. Pure: entries in, entries out, in one streaming pass.

The result is what the kernel's overlayfs shows when it mounts the layer trees on each other.
Source: OCI image layer specification 1.1, "Applying Changesets".
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter

from publisher.entry import Entry, EntryType, Fixup, Merged, sort_key
from publisher.layers.errors import LayerError
from publisher.layers.index import LayerIndex
from publisher.layers.names import MAX_COMPONENT_BYTES, shown

_AFTER_ALL = b"\xff" * (MAX_COMPONENT_BYTES + 1)

_Links = Mapping[tuple[int, str], Merged]
_KeyedEntry = tuple[bytes, int, Entry]


def merge(indexes: Sequence[Iterable[Entry]]) -> Iterator[Merged]:
    """The flat image of the layers whose `indexes` these are, from bottom to top.

    Sorted component-wise, parents before children. Indexes must be sorted likewise, and are read
    twice if one of them has hard links to files of lower layers. Memory does not grow with the
    number of entries, but with that of files whose names (hard links) lie far apart. Raises
    LayerError for a hard link whose target no layer has.
    """
    return _merge(indexes, _lower_links(indexes))


def fixups(indexes: Sequence[Iterable[Entry]], opaque_xattrs: bool = True) -> Iterator[Fixup]:
    """What the tree of the topmost of these layers needs on account of the others; sorted.

    Directories that its archive only implied get the metadata that the layers below give them; hard
    links whose target only lower layers have get a copy; dropped devices that hide something get a
    whiteout. An opaque root directory, which overlayfs does not know, is spelled out as whiteouts
    and opaque directories below it; without `opaque_xattrs` so is every opaque directory, as
    whiteouts.
    """
    *lower, top = indexes
    last = _last_concerned(top)
    if last is None:
        return
    links = _lower_links(indexes)
    below = _merge(lower, {k: v for k, v in links.items() if k[0] < len(lower)})
    streams: list[Iterator[tuple[bytes, int, Entry]]] = [
        ((sort_key(m.entry.path), 0, m.entry) for m in below),
        ((sort_key(e.path), 1, e) for e in top),
    ]
    seen = _Seen(opaque_xattrs)
    for key, group in groupby(heapq.merge(*streams), itemgetter(0)):
        if key > last:
            return
        found = {number: entry for _, number, entry in group}
        entry = found.get(1)
        if entry is not None and entry.is_unresolved:
            link = links[len(lower), entry.path]
            yield Fixup(_as_file(link.entry, entry.path), link.layer, link.source)
        yield from seen.compare(key, found.get(0), entry)


def _last_concerned(index: Iterable[Entry]) -> bytes | None:
    """The last key that lower layers can have a say in; None where they have none.

    Most layers say all of themselves, or all but the root directory: then hardly anything of the
    lower layers' indexes has to be read, which would else be the square of the number of layers.
    """
    last: bytes | None = None
    for entry in index:
        if entry.opaque:
            bound = sort_key(entry.path) + b"\1" if entry.path else _AFTER_ALL
        elif entry.implicit or entry.dropped or entry.is_unresolved:
            bound = sort_key(entry.path)
        else:
            continue
        last = bound if last is None else max(last, bound)
    return last


@dataclass(slots=True)
class _Above:
    """How a directory of the upper layer hides what the lower ones have below it.

    `hidden`: nothing of theirs may be seen. `spelled_out`: overlayfs does not know that by itself.
    `gone`: nothing of theirs is seen anyway.
    """

    prefix: bytes
    hidden: bool = False
    spelled_out: bool = False
    gone: bool = False


class _Seen:
    """Compares, path after path, what the lower layers have with what the upper one has."""

    def __init__(self, opaque_xattrs: bool) -> None:
        self._opaque_xattrs = opaque_xattrs
        self._above = [_Above(b"")]

    def compare(self, key: bytes, lower: Entry | None, upper: Entry | None) -> Iterator[Fixup]:
        while len(self._above) > 1 and not key.startswith(self._above[-1].prefix):
            self._above.pop()
        parent = self._above[-1] if key else _Above(b"")
        if parent.gone:
            return
        if upper is None:
            assert lower is not None
            if parent.hidden and parent.spelled_out:
                yield Fixup(Entry(lower.path, EntryType.WHITEOUT, mode=0))
            if lower.type is EntryType.DIRECTORY:
                # Nothing of the upper layer is below it: either all of it shows, or none.
                self._push(key, _Above(b"", gone=True))
            return
        if upper.type is not EntryType.DIRECTORY:
            # Trees are unpacked without whiteouts below opaque directories, or for dropped devices.
            is_missing = parent.spelled_out if parent.hidden else bool(upper.dropped)
            if lower is not None and upper.type is EntryType.WHITEOUT and is_missing:
                yield Fixup(Entry(upper.path, EntryType.WHITEOUT, mode=0))
            self._push(key, _Above(b"", gone=True))
            return
        yield from self._compare_directory(key, parent, lower, upper)

    def _compare_directory(
        self, key: bytes, parent: _Above, lower: Entry | None, upper: Entry
    ) -> Iterator[Fixup]:
        lower_is_directory = lower is not None and lower.type is EntryType.DIRECTORY
        fixed = upper
        if upper.implicit and not parent.hidden and lower is not None and lower_is_directory:
            fixed = _with_metadata_of(upper, lower)
        spelled_out = parent.spelled_out
        if parent.spelled_out and self._opaque_xattrs and lower_is_directory:
            fixed = replace(fixed, opaque=True)
            spelled_out = False
        if upper.opaque and (not key or not self._opaque_xattrs):
            spelled_out = True
        if fixed != upper:
            yield Fixup(fixed)
        hidden = parent.hidden or upper.opaque
        self._push(key, _Above(b"", hidden, hidden and spelled_out))

    def _push(self, key: bytes, above: _Above) -> None:
        if key:
            above.prefix = key + b"\0"
            self._above.append(above)
        else:
            self._above = [above]


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
        entry = _as_file(file.entry, path)
        if head != path and entry.type is EntryType.FILE:
            entry = replace(entry, type=EntryType.HARDLINK, target=head)
        return Merged(entry, file.layer, file.source)


def _merge(indexes: Sequence[Iterable[Entry]], links: _Links) -> Iterator[Merged]:
    hard_links = _HardLinks(frozenset((link.layer, link.source) for link in links.values()))
    nothing = len(indexes)
    # For each directory on the way down: its key as a prefix, and the lowest layer showing in it.
    above: list[tuple[bytes, int]] = [(b"", 0)]
    for key, group in groupby(_entries(indexes), itemgetter(0)):
        while not key.startswith(above[-1][0]):
            above.pop()
        lowest = above[-1][1]
        visible = [(number, entry) for _, number, entry in group if number >= lowest]
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


def _entries(indexes: Sequence[Iterable[Entry]]) -> Iterator[_KeyedEntry]:
    streams = [_keyed(index, number) for number, index in enumerate(indexes)]
    return streams[0] if len(streams) == 1 else heapq.merge(*streams)


def _keyed(index: Iterable[Entry], number: int) -> Iterator[_KeyedEntry]:
    for entry in index:
        yield sort_key(entry.path), number, entry


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


def _place(entry: Entry, layer: int, hard_links: _HardLinks, links: _Links) -> Merged:
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


def _lower_links(indexes: Sequence[Iterable[Entry]]) -> _Links:
    """Where each hard link that its own layer could not resolve finds its file."""
    links: dict[tuple[int, str], Merged] = {}
    for number, index in enumerate(indexes):
        if isinstance(index, LayerIndex) and not index.header.unresolved:
            continue
        unresolved = [entry for entry in index if entry.is_unresolved]
        if not unresolved:
            continue
        wanted = {entry.target for entry in unresolved}
        found = {
            merged.entry.path: merged
            for merged in _merge(indexes[:number], links)
            if merged.entry.path in wanted and merged.entry.type is not EntryType.DIRECTORY
        }
        for entry in unresolved:
            if entry.target not in found:
                raise LayerError(
                    f"cannot merge layer {number + 1}, entry {shown(entry.path)}",
                    why=f"it is a hard link to {shown(entry.target)}, which neither this layer "
                    "nor those below it have",
                )
            links[number, entry.path] = found[entry.target]
    return links


def _as_file(entry: Entry, path: str) -> Entry:
    if entry.type is EntryType.HARDLINK:
        return replace(entry, path=path, type=EntryType.FILE, target="", links=1)
    return entry if entry.path == path else replace(entry, path=path)


def _with_metadata_of(entry: Entry, other: Entry) -> Entry:
    return replace(
        entry,
        mode=other.mode,
        uid=other.uid,
        gid=other.gid,
        mtime_ns=other.mtime_ns,
        xattrs=other.xattrs,
        implicit=other.implicit,
    )
