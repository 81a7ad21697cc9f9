"""Finds what layer trees need on account of the layers below. Pure: entries in, `Fixup`s out.

A layer is unpacked without knowledge of the layers below it. Three things in its tree depend on
them: the metadata of directories that its archive only implied, copies of files that it links from
below, and whiteouts that spell out what overlayfs would not know by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from publisher.entry import Entry, EntryType, Fixup, sort_key
from publisher.layers.links import as_file, lower_links
from publisher.layers.names import MAX_COMPONENT_BYTES
from publisher.layers.side_by_side import Descent, Group, Level, by_path, has_directory

_AFTER_ALL = b"\xff" * (MAX_COMPONENT_BYTES + 1)


def fixups(indexes: Sequence[Iterable[Entry]], opaque_xattrs: bool = True) -> Iterator[Fixup]:
    """Return what the tree of the topmost of these layers needs; see `image_fixups`."""
    top = len(indexes) - 1
    return (fixup for _, fixup in image_fixups(indexes, {top}, opaque_xattrs))


def image_fixups(
    indexes: Sequence[Iterable[Entry]], layers: Collection[int], opaque_xattrs: bool = True
) -> Iterator[tuple[int, Fixup]]:
    """Find what the trees of some layers of an image need on account of those below, in one pass.

    Directories that an archive only implied get the metadata that the layers below give them; hard
    links whose target only lower layers have get a copy; dropped devices that hide something get a
    whiteout. An opaque root directory, which overlayfs does not know, is spelled out as whiteouts
    and opaque directories below it; without `opaque_xattrs` so is every opaque directory, as
    whiteouts.

    Args:
        indexes: The indexes of all layers, from bottom to top.
        layers: The numbers (from 0, the bottom) of the layers whose fixups are wanted.
        opaque_xattrs: Whether trees mark opaque directories by an extended attribute.

    Returns:
        Pairs of a layer's number and a fixup. Those of one layer are sorted by path.

    Raises:
        LayerError: An index is damaged, or a hard link's target is in no layer.
    """
    ends = {number: _last_concerned(indexes[number]) for number in layers}
    concerned = {number for number, end in ends.items() if end is not None}
    if not concerned:
        return
    last = max(end for end in ends.values() if end is not None)
    indexes = indexes[: max(concerned) + 1]
    links = lower_links(indexes)
    descent = Descent()
    comparison = _Comparison(concerned, opaque_xattrs)
    for key, group in by_path(indexes, last):
        level = descent.to(key)
        for number, entry in group:
            if entry.is_unresolved and number in concerned:
                link = links[number, entry.path]
                yield number, Fixup(as_file(link.entry, entry.path), link.layer, link.source)
        yield from comparison.compare(key, group, level)
        descent.enter(key, group)


def _last_concerned(index: Iterable[Entry]) -> bytes | None:
    """Return the last key at which the layers below can matter; None if they cannot at all.

    Most layers have entries for all their directories but perhaps the root: then hardly anything of
    the lower layers' indexes has to be read.
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


@dataclass(frozen=True, slots=True)
class _State:
    """Whether a layer's directory hides what the layers below have in it.

    `hidden`: nothing of lower layers shows. `spelled_out`: the tree cannot mark the directory as
    opaque, so that each name of lower layers needs a whiteout.
    """

    hidden: bool = False
    spelled_out: bool = False


_OPEN = _State()


class _Comparison:
    """Compares, path after path, each concerned layer with what the layers below it show.

    The layers below n show at a path the entry of the highest of them that has one, unless a layer
    between that one and n cuts through a directory above (see `Level`). Going up through the layers
    at one path, what shows changes only where a layer has an entry or cuts. A layer that does
    neither needs nothing there. The work is therefore proportional to the number of entries, and
    does not grow with the number of layers.
    """

    def __init__(self, concerned: Collection[int], opaque_xattrs: bool) -> None:
        self._concerned = concerned
        self._opaque_xattrs = opaque_xattrs
        # For each level, innermost last: the states of those concerned layers that have it.
        self._states: list[tuple[bytes, dict[int, _State]]] = [(b"", {})]

    def compare(self, key: bytes, group: Group, level: Level) -> Iterator[tuple[int, Fixup]]:
        """Yield what layers need at one path; paths must come sorted."""
        while not key.startswith(self._states[-1][0]):
            self._states.pop()
        above = self._states[-1][1]
        states: dict[int, _State] = {}
        lower: Entry | None = None
        lower_number = -1
        for number, upper in group:
            cut = level.next_cut(lower_number) if lower is not None else None
            if cut is not None and cut < number:
                yield from self._cut(cut, lower, above)
                lower = None
            if number in self._concerned:
                state = above.get(number, _OPEN)
                if upper.type is EntryType.DIRECTORY:
                    fixed, states[number] = self._directory(lower, upper, state, is_root=not key)
                    if fixed != upper:
                        yield number, Fixup(fixed)
                elif _needs_whiteout(lower, upper, state):
                    yield number, Fixup(Entry(upper.path, EntryType.WHITEOUT, mode=0))
            # A layer that cuts above this path hides `lower` from those on top of it.
            lower, lower_number = _shown(None if cut == number else lower, upper), number
        cut = level.next_cut(lower_number) if lower is not None else None
        if cut is not None:
            yield from self._cut(cut, lower, above)
        if has_directory(group):
            self._states.append((key + b"\0" if key else b"", states))

    def _cut(
        self, number: int, lower: Entry | None, above: dict[int, _State]
    ) -> Iterator[tuple[int, Fixup]]:
        """Spell out that layer `number`, which has nothing at a path, hides `lower` there."""
        state = above.get(number)  # None if the layer cuts further up: it is spelled out there
        if state is not None and state.spelled_out and lower is not None:
            yield number, Fixup(Entry(lower.path, EntryType.WHITEOUT, mode=0))

    def _directory(
        self, lower: Entry | None, upper: Entry, above: _State, is_root: bool
    ) -> tuple[Entry, _State]:
        """Return the layer's directory as its tree needs it, and its state for what is in it."""
        fixed = upper
        covers_directory = lower is not None and lower.type is EntryType.DIRECTORY
        if upper.implicit and not above.hidden and lower is not None and covers_directory:
            fixed = _with_metadata_of(upper, lower)
        spelled_out = above.spelled_out
        if spelled_out and self._opaque_xattrs and covers_directory:
            # Below a root that is spelled out, directories can be marked again.
            fixed = replace(fixed, opaque=True)
            spelled_out = False
        if upper.opaque and (is_root or not self._opaque_xattrs):
            spelled_out = True
        hidden = above.hidden or upper.opaque
        return fixed, _State(hidden, hidden and spelled_out)


def _needs_whiteout(lower: Entry | None, upper: Entry, above: _State) -> bool:
    """Return whether `upper` is a whiteout that the tree lacks, and that hides something.

    Trees are unpacked without whiteouts below opaque directories, or in place of dropped devices.
    """
    if lower is None or upper.type is not EntryType.WHITEOUT:
        return False
    return above.spelled_out if above.hidden else bool(upper.dropped)


def _shown(lower: Entry | None, upper: Entry) -> Entry | None:
    """Return what shows at a path if a layer with `upper` is on top of layers that show `lower`."""
    if upper.type is EntryType.WHITEOUT:
        return None
    is_directory = lower is not None and lower.type is upper.type is EntryType.DIRECTORY
    if is_directory and upper.implicit and lower is not None and not lower.implicit:
        return lower
    return upper


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
