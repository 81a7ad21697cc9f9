"""Runs the layer engine on layers made by tests: trees, indexes and flat images in a directory."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher.entry import Entry, EntryType
from publisher.layers.fixups import fixups
from publisher.layers.index import LayerIndex, read_index
from publisher.layers.merge import merge
from publisher.layers.policy import Policy
from publisher.layers.unpack import LayerSummary, unpack
from publisher.repository.directory.linker import LinkReport, apply_fixups, link_tree
from publisher.repository.directory.tree_writer import TreeWriter
from tests.layer_builder import Layer, Member, layer


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A layer after unpacking: its tree on disk, its index and summary."""

    tree: Path
    index: LayerIndex
    summary: LayerSummary
    index_file: io.BytesIO

    @property
    def entries(self) -> dict[str, Entry]:
        return {entry.path: entry for entry in self.index}

    @property
    def paths(self) -> list[str]:
        """All paths but the root's."""
        return [entry.path for entry in self.index if entry.path]


@dataclass(frozen=True, slots=True)
class Published:
    """Several layers on each other: their completed trees, and the flat image."""

    layers: Sequence[Unpacked]
    flat: Path
    report: LinkReport

    @property
    def trees(self) -> list[Path]:
        return [each.tree for each in self.layers]


def unpack_layer(source: Layer, tree: Path, policy: Policy | None = None) -> Unpacked:
    """Unpack one layer into `tree`."""
    file = io.BytesIO()
    with TreeWriter(tree) as sink:
        summary = unpack(
            source.chunks(), source.descriptor, source.diff_id, sink, file, policy or Policy()
        )
    return Unpacked(tree, read_index(file), summary, file)


def publish(
    directory: Path, *layers: Layer, policy: Policy | None = None, opaque_xattrs: bool = True
) -> Published:
    """Unpack `layers`, complete their trees, and link the flat image, all below `directory`.

    Without `opaque_xattrs` the trees are as a repository would have them that cannot store those.
    """
    directory.mkdir(exist_ok=True)
    unpacked: list[Unpacked] = []
    for number, each in enumerate(layers):
        unpacked.append(unpack_layer(each, directory / f"layer-{number}", policy))
        if not opaque_xattrs:
            _forget_opaqueness(unpacked[-1])
        needed = fixups([u.index for u in unpacked], opaque_xattrs)
        apply_fixups(unpacked[-1].tree, needed, [u.tree for u in unpacked[:-1]])
    return _linked(unpacked, directory / "flat")


def lower_image(published: Published, count: int, flat: Path) -> Published:
    """Link the flat image of the lowest `count` layers of another one."""
    return _linked(published.layers[:count], flat)


def _linked(layers: Sequence[Unpacked], flat: Path) -> Published:
    plan = merge([each.index for each in layers])
    return Published(layers, flat, link_tree(flat, plan, [each.tree for each in layers]))


def _forget_opaqueness(layer: Unpacked) -> None:
    for entry in layer.index:
        if entry.opaque:
            for name in os.listxattr(layer.tree / entry.path):
                if name.endswith(".overlay.opaque"):
                    os.removexattr(layer.tree / entry.path, name)


def flat_entries(*layers: Unpacked) -> dict[str, Entry]:
    """The flat image of these layers, from their indexes alone."""
    return {m.entry.path: m.entry for m in merge([each.index for each in layers])}


class Unpack:
    """Unpacks members given as arguments, each time into a new tree below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    def __call__(
        self, *members: Member | bytes, policy: Policy | None = None, **fields: object
    ) -> Unpacked:
        self._count += 1
        make: Callable[..., Layer] = layer
        return unpack_layer(
            make(*members, **fields), self._directory / f"tree-{self._count}", policy
        )


def types(entries: dict[str, Entry]) -> dict[str, str]:
    """Each path with the letter of its type, without the root."""
    return {path: str(entry.type) for path, entry in entries.items() if path}


def names_below(tree: Path) -> Iterator[str]:
    """Every path below `tree`, sorted by name, links not followed."""
    for path in sorted(tree.iterdir()):
        yield path.name
        if path.is_dir() and not path.is_symlink():
            yield from (f"{path.name}/{below}" for below in names_below(path))


def is_whiteout(entry: Entry) -> bool:
    return entry.type is EntryType.WHITEOUT
