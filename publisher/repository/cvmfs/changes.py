"""Convert the changes of a transaction to the server calls that execute them. Pure.

If possible, there is one call. Otherwise every intermediate state is valid: content is published
before references to it, and references are removed before the content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from publisher.entry import EntryType, Fixup
from publisher.lazy import dataclass
from publisher.repository import PathTaken
from publisher.tree import layout

_MOST_DELETED_BYTES = 64 * 1024
"""The most bytes of paths in one call, which the server passes in one argument."""

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+@=%/")
"""The characters of paths that `ingest -d` handles correctly."""

Kind = Callable[[str], EntryType | None]
"""Returns the type of the published entry at a path, or None."""


@dataclass(frozen=True, slots=True)
class NewLayer:
    """A staged layer to be published with `fixups`, which refer to the layers `below`."""

    digest: str
    fixups: tuple[Fixup, ...]
    below: tuple[str, ...]

    @property
    def borrows(self) -> bool:
        """Whether its tree has links to files of other layer trees."""
        return any(fixup.layer is not None for fixup in self.fixups)


@dataclass(frozen=True, slots=True)
class NewTree:
    """A flat image at `path`, whose entries are in the file `plan`."""

    path: str
    plan: Path


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of one transaction.

    `files` and `links` map paths to contents and texts, `large` to the files to be sent. `cleared`
    are trees that are replaced, and what is in the place of a record; a separate call removes them
    before the new ones are sent. `directories` are missing top directories.
    """

    layers: tuple[NewLayer, ...] = ()
    trees: tuple[NewTree, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    removals: tuple[str, ...] = ()
    cleared: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    large: Mapping[str, Path] = field(default_factory=dict)

    @property
    def has_content(self) -> bool:
        """Whether anything is added that only this publisher can send."""
        return bool(self.layers or self.trees or self.large)

    @property
    def has_additions(self) -> bool:
        """Whether anything is added or replaced."""
        return bool(self.has_content or self.files or self.links or self.directories)


@dataclass(frozen=True, slots=True)
class Ingest:
    """One `cvmfs_server ingest`: deletions, then additions below `base`, as one revision."""

    additions: Changes = Changes()
    deletions: tuple[str, ...] = ()
    base: str = ""


@dataclass(frozen=True, slots=True)
class Edit:
    """One `cvmfs_server transaction`, changes in the union mount, `cvmfs_server publish`.

    It is used for names that `ingest -d` does not accept, and at a gateway for records, which must
    not change between reading and writing.
    """

    removals: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = ()


Call = Ingest | Edit


def top_directories(*, shards: bool) -> list[str]:
    """Return the directories that every repository has, parents first; with or without shards."""
    names = [f"{number:02x}" for number in range(256)] if shards else []
    tops = (layout.LAYERS, layout.FLAT)
    return [layout.METADATA, *tops, *(f"{top}/{name}" for top in tops for name in names)]


def compile_calls(changes: Changes, kind: Kind, gateway: bool = False) -> tuple[Call, ...]:
    """Return the calls, in order, that apply `changes` to the repository that `kind` describes.

    Raises:
        PathTaken: A file or link is at the path of a directory, or a directory at that of a file.
    """
    _check_places(changes, kind)
    removals = _outermost(path for path in changes.removals if kind(path) is not None)
    _check_apart(changes, removals)
    plain = [path for path in removals if set(path) <= _SAFE]
    odd = tuple(path for path in removals if path not in plain)
    cleared = tuple(path for path in changes.cleared if kind(path) is not None)
    additions = replace(changes, removals=(), cleared=())
    if gateway:
        return (*_clearing(cleared), *_calls_by_lease(additions, (*odd, *plain), kind))
    odd_cleared = tuple(path for path in cleared if not set(path) <= _SAFE)
    plain_cleared = [path for path in cleared if path not in odd_cleared]
    return (
        *(Ingest(deletions=batch) for batch in _batches(plain_cleared)),
        *([Edit(odd_cleared)] if odd_cleared else []),
        *_calls(additions, plain, odd),
    )


def _calls(additions: Changes, plain: Sequence[str], odd: tuple[str, ...]) -> list[Call]:
    """Return as few calls as the number of `plain` removals, and the `odd` ones, allow."""
    batches = _batches(plain)
    # Names are removed after new content is published, and before their own content.
    odd_first = bool(odd) and not (additions.has_content or additions.links)
    if odd_first and not batches:
        return [Edit(odd, additions.files)]
    *earlier, last = batches or [()]
    # The last batch contains the records that describe the removal.
    ingests: list[Call] = [Ingest(deletions=batch) for batch in earlier]
    if additions.has_additions or last:
        ingests.append(Ingest(additions, last))
    if not odd:
        return ingests
    return [Edit(odd), *ingests] if odd_first else [*ingests, Edit(odd)]


def _clearing(paths: tuple[str, ...]) -> list[Call]:
    """Return the one call that removes `paths` through a gateway, whose `ingest` deletes one."""
    if len(paths) == 1:
        return [Ingest(deletions=paths)]
    return [Edit(paths)] if paths else []


def _calls_by_lease(changes: Changes, removals: tuple[str, ...], kind: Kind) -> list[Call]:
    """Return the calls through a gateway: layers, then trees, then their records and links.

    There are at most three. Layers are sent under a lease of `.layers`, or of the shard of a single
    layer, so that other publishers can change records meanwhile. The parent directory of a lease
    has to exist, and hard links cannot lead out of it. Layers with links to files of other layers
    are therefore sent with the flat images, whose lease is the whole repository.

    All records, including those of new layers (another publisher may send the same layer), are
    changed under a lease of the whole repository, which shows whether another publisher changed
    them concurrently. Unused content is removed under that lease too, since another publisher
    could otherwise begin to use it.
    """
    calls: list[Call] = []
    apart = tuple(layer for layer in changes.layers if not layer.borrows)
    if kind(layout.LAYERS) is not EntryType.DIRECTORY:
        apart = ()
    if apart:
        calls.append(Ingest(Changes(layers=apart), base=_common_base(apart, kind)))
    together = tuple(layer for layer in changes.layers if layer not in apart)
    directories = changes.directories
    if together or changes.trees or changes.large:
        content = replace(changes, layers=together, files={}, links={})
        calls.append(Ingest(content))
        directories = ()
    edit = Edit(removals, changes.files, changes.links, directories)
    if edit != Edit():
        calls.append(edit)
    return calls


def _common_base(layers: Sequence[NewLayer], kind: Kind) -> str:
    shards = {layout.layer_directory(layer.digest).rpartition("/")[0] for layer in layers}
    if len(shards) == 1 and kind(shard := shards.pop()) is EntryType.DIRECTORY:
        return shard
    return layout.LAYERS


def _check_places(changes: Changes, kind: Kind) -> None:
    for path in (*changes.files, *changes.links, *changes.large):
        if kind(path) is EntryType.DIRECTORY and path not in changes.cleared:
            raise PathTaken(
                f"cannot publish {path}",
                path=path,
                why="a directory that the publisher did not create is at that path",
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
                    path=path,
                    why=f"{above} is not a directory",
                    hint=f"remove {above} from the repository by hand",
                )


def _check_apart(changes: Changes, removals: Sequence[str]) -> None:
    """Check that no path is both removed and added: the server does not support that."""
    added = {
        *changes.files,
        *changes.links,
        *changes.large,
        *(tree.path for tree in changes.trees),
        *(layout.layer_directory(layer.digest) for layer in changes.layers),
    }
    for removal in removals:
        for path in added:
            if path == removal or path.startswith(f"{removal}/"):
                raise PathTaken(
                    f"cannot publish {path}",
                    path=path,
                    why=f"{removal} is removed in the same transaction",
                )


def _outermost(paths: Iterable[str]) -> list[str]:
    """Return each path once, without those that lie below another one."""
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
