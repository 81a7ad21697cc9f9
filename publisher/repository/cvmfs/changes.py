"""A transaction's changes -> the server calls that carry them out. Pure.

One call wherever that is possible. Where it is not, every state in between is a valid one: content
comes before what leads to it, and what leads to content goes before the content does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from publisher.entry import EntryType, Fixup
from publisher.repository import PathTaken
from publisher.tree import layout

_MOST_DELETED_BYTES = 64 * 1024
"""Of paths in one call: the server puts them into one argument, which the kernel limits."""

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+@=%/")
"""What a path to delete may consist of: all else is split at, cut off or interpreted by a shell."""


@dataclass(frozen=True, slots=True)
class NewLayer:
    """A staged layer to be published, completed by what `fixups` takes from `below`."""

    digest: str
    fixups: tuple[Fixup, ...]
    below: tuple[str, ...]

    @property
    def borrows(self) -> bool:
        """Whether its tree has links into other layers' trees."""
        return any(fixup.layer is not None for fixup in self.fixups)


@dataclass(frozen=True, slots=True)
class NewTree:
    """A flat image, planned in the file `planned`."""

    path: str
    planned: Path


@dataclass(frozen=True, slots=True)
class Changes:
    """What one transaction changes. `cleared` are trees that are replaced: they go first."""

    layers: tuple[NewLayer, ...] = ()
    trees: tuple[NewTree, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    removals: tuple[str, ...] = ()
    cleared: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()

    @property
    def has_additions(self) -> bool:
        """Whether anything is added or replaced."""
        return bool(self.layers or self.trees or self.files or self.links or self.directories)


@dataclass(frozen=True, slots=True)
class Ingest:
    """One `cvmfs_server ingest`: deletions, then what is added, as one revision."""

    additions: Changes = Changes()
    deletions: tuple[str, ...] = ()
    base: str = ""


@dataclass(frozen=True, slots=True)
class Edit:
    """One `cvmfs_server transaction`, changes by hand, `publish`.

    For names that ingest cannot say; and, through a gateway, for all that must not change between
    being read and being written.
    """

    removals: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = ()


Call = Ingest | Edit


def compile_calls(
    changes: Changes, kind: Callable[[str], EntryType | None], gateway: bool = False
) -> tuple[Call, ...]:
    """The calls, in order, that make of what `kind` sees in the repository what `changes` says.

    Raises PathTaken where a directory stands in the way of a file or link, or the other way round.
    """
    _check_places(changes, kind)
    removals = _outermost(path for path in changes.removals if kind(path) is not None)
    _check_apart(changes, removals)
    plain = [path for path in removals if set(path) <= _SAFE]
    odd = tuple(path for path in removals if path not in plain)
    cleared = tuple(path for path in changes.cleared if kind(path) is not None)
    additions = replace(changes, removals=(), cleared=())
    if gateway:
        return (*_single(cleared), *_by_lease(additions, (*odd, *plain), kind))
    batches = _batches(plain)
    has_content = bool(changes.layers or changes.trees or changes.links)
    calls: list[Call] = [Ingest(deletions=batch) for batch in _batches(cleared)]
    if odd and not has_content:
        if not batches:
            return (*calls, Edit(odd, additions.files))
        calls.append(Edit(odd))
        odd = ()
    *earlier, last = batches or [()]
    # The records that say the content is gone come with the last of it.
    calls += [Ingest(deletions=batch) for batch in earlier]
    if additions.has_additions or last:
        calls.append(Ingest(additions, last))
    if odd:
        calls.append(Edit(odd))
    return tuple(calls)


def _single(paths: Iterable[str]) -> list[Call]:
    """A gateway takes one deletion a call."""
    return [Ingest(deletions=(path,)) for path in paths]


def _by_lease(
    changes: Changes, removals: tuple[str, ...], kind: Callable[[str], EntryType | None]
) -> list[Call]:
    """Layers each under a lease of their shard alone; then, briefly, all that leads to them.

    A lease needs its parent to be there; and what is unpacked below a base can only be linked to
    what lies there. Other layers come with the flat images. All records, also those of new layers
    (another publisher may send the same layer), are changed under a lease, in which can be seen
    whether somebody was quicker; and what nobody uses any more is removed under it, since otherwise
    somebody might come to use it meanwhile.
    """
    calls: list[Call] = []
    together = []
    for layer in changes.layers:
        directory = layout.layer_directory(layer.digest)
        shard = directory.rpartition("/")[0]
        if layer.borrows or kind(shard) is not EntryType.DIRECTORY:
            together.append(layer)
            continue
        calls.append(Ingest(Changes(layers=(layer,)), base=shard))
    directories = changes.directories
    if together or changes.trees:
        content = replace(changes, layers=tuple(together), files={}, links={})
        calls.append(Ingest(content))
        directories = ()
    edit = Edit(removals, changes.files, changes.links, directories)
    if edit != Edit():
        calls.append(edit)
    return calls


def _check_places(changes: Changes, kind: Callable[[str], EntryType | None]) -> None:
    for path in (*changes.files, *changes.links):
        if kind(path) is EntryType.DIRECTORY:
            raise PathTaken(
                f"cannot publish {path}",
                why="a directory stands there that the publisher did not make",
                hint=f"remove {path} from the repository by hand",
            )
        above = path
        while above := above.rpartition("/")[0]:
            found = kind(above)
            if found is EntryType.DIRECTORY:
                break
            if found is not None:
                raise PathTaken(
                    f"cannot publish {path}",
                    why=f"{above} is not a directory",
                    hint=f"remove {above} from the repository by hand",
                )


def _check_apart(changes: Changes, removals: Sequence[str]) -> None:
    """One call must not delete a path and add it again: nor does any transaction mean that."""
    added = {
        *changes.files,
        *changes.links,
        *(tree.path for tree in changes.trees),
        *(layout.layer_directory(layer.digest) for layer in changes.layers),
    }
    for removal in removals:
        for path in added:
            if path == removal or path.startswith(f"{removal}/"):
                raise PathTaken(
                    f"cannot publish {path}", why=f"{removal} is removed in the same transaction"
                )


def _outermost(paths: Iterable[str]) -> list[str]:
    """Each path once, without those that lie below another."""
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda p: f"{p}/"):
        if not kept or not path.startswith(f"{kept[-1]}/"):
            kept.append(path)
    return kept


def _batches(paths: Sequence[str]) -> list[tuple[str, ...]]:
    batches: list[list[str]] = []
    size = _MOST_DELETED_BYTES
    for path in paths:
        size += len(path) + 3
        if size > _MOST_DELETED_BYTES:
            batches.append([])
            size = len(path) + 3
        batches[-1].append(path)
    return [tuple(batch) for batch in batches]
