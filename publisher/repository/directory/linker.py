"""Link flat images from layer trees, and apply fixups to layer trees."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from publisher.closing import Closing
from publisher.entry import Entry, EntryType, Fixup, Generated, Merged
from publisher.lazy import dataclass
from publisher.repository.descriptors import DIRECTORY, Directories, remove_at, source_pool_size
from publisher.repository.directory.hard_links import HardLinks
from publisher.repository.directory.nodes import NodeMaker, set_time
from publisher.repository.disk import name_path

Trees = Sequence[Path] | Mapping[int, Path]
"""Layer trees by the number of their layer."""

NOT_AS_INDEXED = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
"""The errors of a file that is missing from a layer's tree, or that something else replaces."""


@dataclass(frozen=True, slots=True)
class LinkReport:
    """The result of a plan. `refused` counts what the file system refused, by its kind.

    A refused hard link ("hard link (EMLINK)") became a copy.
    """

    directories: int
    links: int
    copies: int
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LinkJob:
    """A flat image that another process is to link.

    `layers` are the directories of its layers, from bottom to top, and `destination` is that of
    the image, in a private directory; all are below `root`. `generated` is that of `FlatPlan`.
    """

    root: Path
    destination: Path
    layers: Sequence[Path]
    generated: Sequence[Generated]


Link = Callable[[LinkJob], Mapping[str, int]]
"""Links a flat image in another process, and returns `refused` of its LinkReport."""


def link_tree(
    destination: Path, plan: Iterable[Merged | Generated], layer_trees: Trees
) -> LinkReport:
    """Build the flat image `plan` at `destination`, which is made if missing and must be empty.

    Files, symlinks and FIFOs are hard links to `layer_trees` (numbered as in the plan), whose names
    are never followed as links; directories are made, with their times set once they are complete.
    Neither memory nor open descriptors grow with the plan, which must be sorted.

    Raises:
        OSError: With an errno of NOT_AS_INDEXED: a layer tree does not have the file that is named
            by its `filename`; with another one: the flat image cannot be written.
    """
    destination.mkdir(mode=0o700, exist_ok=True)
    maker = NodeMaker()
    with ExitStack() as stack:
        target = stack.enter_context(Directories(destination))
        hard_links = stack.enter_context(HardLinks(maker))
        sources = stack.enter_context(_Sources(layer_trees))
        linker = _Linker(target, sources, maker, hard_links)
        for planned in plan:
            try:
                linker.add(planned)
            except OSError as error:
                if error.errno in NOT_AS_INDEXED:
                    error.filename = planned.entry.path
                name_path(error, planned.entry.path)
                raise
        return linker.finish()


def apply_fixups(tree: Path, fixups: Iterable[Fixup], layer_trees: Trees) -> None:
    """Complete the layer tree `tree` by `fixups`, with copies from `layer_trees`.

    Directories keep their times. May be repeated: existing entries are replaced. A file with
    several names is copied once, and linked.
    """
    maker = NodeMaker()
    copied: dict[tuple[int, int], str] = {}
    with ExitStack() as stack:
        target = stack.enter_context(Directories(tree))
        hard_links = stack.enter_context(HardLinks(maker))
        sources = stack.enter_context(_Sources(layer_trees))
        for fixup in fixups:
            entry = fixup.entry
            if entry.type is EntryType.DIRECTORY:
                descriptor = target.open(entry.path)
                maker.redescribe_directory(descriptor, entry)
                set_time(descriptor, entry.mtime_ns)
                continue
            parent_path, _, name = entry.path.rpartition("/")
            parent = target.open(parent_path)
            before = os.fstat(parent).st_mtime_ns
            if _exists(parent, name):
                remove_at(parent, name)
            if fixup.layer is None:
                maker.other(parent, name, entry)
            else:
                source_path, _, source_name = fixup.source.rpartition("/")
                source = sources.open(fixup.layer, source_path)
                status = os.stat(source_name, dir_fd=source, follow_symlinks=False)
                first = copied.setdefault((status.st_dev, status.st_ino), entry.path)
                if first == entry.path:
                    maker.copy(parent, name, source, source_name)
                else:
                    first_path, _, first_name = first.rpartition("/")
                    hard_links.add(parent, name, target.open(first_path), first_name)
            set_time(parent, before)


class _Sources(Closing):
    """Directories of layer trees; the trees used most recently stay open.

    A descriptor that `open` returned is valid until two others have been opened.
    """

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._most_trees, self._most_in_tree = source_pool_size()
        self._open: dict[int, Directories] = {}
        self._latest: tuple[int, Directories | None] = -1, None

    def close(self) -> None:
        for directories in self._open.values():
            directories.close()

    def open(self, layer: int, path: str) -> int:
        """Return a descriptor of the directory `path` in the tree of `layer`."""
        number, directories = self._latest
        if layer == number and directories is not None:
            return directories.open(path)
        directories = self._open.pop(layer, None)
        if directories is None:
            if len(self._open) >= self._most_trees:
                self._open.pop(next(iter(self._open))).close()
            directories = Directories(self._trees[layer], self._most_in_tree)
        self._open[layer] = directories  # now the latest
        self._latest = layer, directories
        return directories.open(path)


class _Linker:
    """Executes a sorted plan; the directories above the current entry are unfinished."""

    def __init__(
        self,
        target: Directories,
        sources: _Sources,
        maker: NodeMaker,
        hard_links: HardLinks,
    ) -> None:
        self._target = target
        self._sources = sources
        self._maker = maker
        self._hard_links = hard_links
        self._unfinished: list[tuple[str, Entry]] = []
        self._directories = 0
        self._links = 0
        self._copies = 0

    def add(self, planned: Merged | Generated) -> None:
        entry = planned.entry
        path = entry.path
        while self._unfinished and not path.startswith(self._unfinished[-1][0]):
            self._finish_directory()
        above, _, name = path.rpartition("/")
        if entry.type is EntryType.DIRECTORY:
            if path:
                parent = self._target.open(above)
                os.mkdir(name, 0o700, dir_fd=parent)
                self._target.keep(path, os.open(name, DIRECTORY, dir_fd=parent))
            self._unfinished.append((f"{path}/" if path else "", entry))
            self._directories += 1
            return
        parent = self._target.open(above)
        if isinstance(planned, Generated):
            if entry.type is EntryType.FILE:
                self._maker.file(parent, name, entry, [planned.content])
            else:
                self._maker.other(parent, name, entry)
            return
        if entry.type is EntryType.HARDLINK:
            source_path, _, source_name = entry.target.rpartition("/")
            source = self._target.open(source_path)
        else:
            source_path, source_name = above, name
            if planned.source != path:
                source_path, _, source_name = planned.source.rpartition("/")
            source = self._sources.open(planned.layer, source_path)
        if self._hard_links.add(parent, name, source, source_name):
            self._links += 1
        else:
            self._copies += 1

    def finish(self) -> LinkReport:
        while self._unfinished:
            self._finish_directory()
        return LinkReport(self._directories, self._links, self._copies, dict(self._maker.refused))

    def _finish_directory(self) -> None:
        _, entry = self._unfinished.pop()
        descriptor = self._target.open(entry.path)
        self._maker.describe(descriptor, entry)
        set_time(descriptor, entry.mtime_ns)


def _exists(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
