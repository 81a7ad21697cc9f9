"""Determine the changes of layer trees that the layers below make necessary. Pure.

A layer is unpacked without the layers below it. Three parts of its tree depend on them: the
metadata of directories that its archive implied but has no entry for, copies of files of lower
layers that it has hard links to, and whiteouts for opaque directories that overlayfs would not
recognize.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from publisher.entry import Entry, EntryType, Fixup, sort_key
from publisher.layers.index import LayerIndex
from publisher.layers.links import as_file, lower_link, lower_links
from publisher.layers.names import MAX_COMPONENT_BYTES
from publisher.layers.side_by_side import Descent, Group, Level, by_path, has_directory
from publisher.lazy import dataclass

_AFTER_ALL = b"\xff" * (MAX_COMPONENT_BYTES + 1)


def fixups(indexes: Sequence[Iterable[Entry]], opaque_xattrs: bool = True) -> Iterator[Fixup]:
    """Return the fixups of the topmost of these layers; see `image_fixups`."""
    top = len(indexes) - 1
    return (fixup for _, fixup in image_fixups(indexes, {top}, opaque_xattrs))


def image_fixups(
    indexes: Sequence[Iterable[Entry]], layers: Collection[int], opaque_xattrs: bool = True
) -> Iterator[tuple[int, Fixup]]:
    """Determine the fixups of several layers of an image in one pass.

    - A directory that the archive of a layer only implied has the metadata of lower layers.
    - A hard link whose target is in a lower layer becomes a copy of that file.
    - A dropped device that hides an entry of lower layers becomes a whiteout.
    - An opaque root directory, which overlayfs does not support, is replaced by whiteouts and
      opaque directories below it. Without `opaque_xattrs`, every opaque directory is replaced by
      whiteouts.

    Args:
        indexes: The indexes of all layers, from bottom to top.
        layers: The numbers (from 0, the bottom) of the layers whose fixups are returned.
        opaque_xattrs: Whether trees mark opaque directories by an extended attribute.

    Returns:
        Pairs of a layer's number and a fixup. Those of one layer are sorted by path.

    Raises:
        LayerError: An index is damaged, or a hard link's target is in no layer.
    """
    ends = {number: _last_concerned(indexes[number], is_lowest=number == 0) for number in layers}
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
                link = lower_link(links, number, entry.path)
                yield number, Fixup(as_file(link.entry, entry.path), link.layer, link.source)
        yield from comparison.compare(key, group, level)
        descent.enter(key, group)


def _last_concerned(index: Iterable[Entry], *, is_lowest: bool) -> bytes | None:
    """Return the last key at which lower layers can require a fixup; None if there is no such key.

    In the lowest layer, that is an error: a hard link whose target is in no layer.

    Most layers have entries for all directories except perhaps the root. Only the beginning of the
    lower layers' indexes is then read.
    """
    last: bytes | None = None
    for entry in index.special() if isinstance(index, LayerIndex) else index:
        if is_lowest and not entry.is_unresolved:
            continue
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
    """How a layer's directory hides the entries of lower layers in it.

    `hidden`: all entries of lower layers are hidden. `spelled_out`: the tree cannot mark the
    directory as opaque, so that each entry of lower layers needs a whiteout.
    """

    hidden: bool = False
    spelled_out: bool = False


_OPEN = _State()


class _Comparison:
    """Compares the layers with the visible entries of the layers below, one path after the other.

    The visible entry of the layers below layer n at a path is that of the highest of them that has
    one, unless a layer between that one and n cuts through a directory above (see `Level`). From
    bottom to top, the visible entry changes only at layers that have an entry there or cut. Other
    layers need no fixup. The cost is therefore proportional to the number of entries, and does not
    depend on the number of layers.
    """

    def __init__(self, concerned: Collection[int], opaque_xattrs: bool) -> None:
        self._concerned = concerned
        self._opaque_xattrs = opaque_xattrs
        # For each level, innermost last: the states of the concerned layers with that directory.
        self._states: list[tuple[bytes, dict[int, _State]]] = [(b"", {})]

    def compare(self, key: bytes, group: Group, level: Level) -> Iterator[tuple[int, Fixup]]:
        """Yield the fixups at one path; calls must be in the order of paths."""
        above = self._states_above(key)
        states: dict[int, _State] = {}
        lower: Entry | None = None
        lower_number = -1
        for number, upper in group:
            cut = level.next_cut(lower_number) if lower is not None else None
            if cut is not None and cut < number:
                yield from self._cut(cut, lower, above)
                lower = None
            if number in self._concerned:
                fixup, state = self._layer(lower, upper, above.get(number, _OPEN), is_root=not key)
                if state is not None:
                    states[number] = state
                if fixup is not None:
                    yield number, fixup
            # A layer that cuts above this path hides `lower` from the layers above it.
            lower, lower_number = _shown(None if cut == number else lower, upper), number
        cut = level.next_cut(lower_number) if lower is not None else None
        if cut is not None:
            yield from self._cut(cut, lower, above)
        self._enter(key, group, states)

    def _states_above(self, key: bytes) -> dict[int, _State]:
        """Return the states of the layers that have the directory above a path."""
        while not key.startswith(self._states[-1][0]):
            self._states.pop()
        return self._states[-1][1]

    def _enter(self, key: bytes, group: Group, states: dict[int, _State]) -> None:
        """Keep the states of a directory for the paths in it."""
        if has_directory(group):
            self._states.append((key + b"\0" if key else b"", states))

    def _layer(
        self, lower: Entry | None, upper: Entry, above: _State, is_root: bool
    ) -> tuple[Fixup | None, _State | None]:
        """Return what a layer needs where it has `upper`, and the state of a directory."""
        if upper.type is EntryType.DIRECTORY:
            fixed, state = self._directory(lower, upper, above, is_root)
            return Fixup(fixed) if fixed != upper else None, state
        if _needs_whiteout(lower, upper, above):
            return Fixup(Entry(upper.path, EntryType.WHITEOUT, mode=0)), None
        return None, None

    def _cut(
        self, number: int, lower: Entry | None, above: dict[int, _State]
    ) -> Iterator[tuple[int, Fixup]]:
        """Yield a whiteout if layer `number`, which has no entry there, has to hide `lower`."""
        state = above.get(number)  # None if the layer cuts further up, where the whiteout is
        if state is not None and state.spelled_out and lower is not None:
            yield number, Fixup(Entry(lower.path, EntryType.WHITEOUT, mode=0))

    def _directory(
        self, lower: Entry | None, upper: Entry, above: _State, is_root: bool
    ) -> tuple[Entry, _State]:
        """Return the directory with its final metadata, and its state for the entries in it."""
        fixed = upper
        covers_directory = lower is not None and lower.type is EntryType.DIRECTORY
        if upper.implicit and not above.hidden and lower is not None and covers_directory:
            fixed = _with_metadata_of(upper, lower)
        spelled_out = above.spelled_out
        if spelled_out and self._opaque_xattrs and covers_directory:
            # Below the root, directories can be marked as opaque again.
            fixed = replace(fixed, opaque=True)
            spelled_out = False
        if upper.opaque and (is_root or not self._opaque_xattrs):
            spelled_out = True
        hidden = above.hidden or upper.opaque
        return fixed, _State(hidden, hidden and spelled_out)


def _needs_whiteout(lower: Entry | None, upper: Entry, above: _State) -> bool:
    """Return whether `upper` is a whiteout that hides `lower` and was not unpacked.

    Whiteouts below opaque directories, and instead of dropped devices, are not unpacked.
    """
    if lower is None or upper.type is not EntryType.WHITEOUT:
        return False
    return above.spelled_out if above.hidden else bool(upper.dropped)


def _shown(lower: Entry | None, upper: Entry) -> Entry | None:
    """Return the visible entry if a layer with `upper` is above layers with the visible `lower`."""
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
