"""The files of one layer while it is unpacked, by this process or by a worker process."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

from publisher.closing import Closing
from publisher.entry import TreeSink
from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.repository.descriptors import Directories
from publisher.repository.disk import PUBLIC_FILE_MODE, make_directories
from publisher.tree import layout

if TYPE_CHECKING:  # most commands unpack no layer
    from publisher.layers.kept_contents import ContentsWriter

Form = Literal["tree", "order"]


@dataclass(frozen=True, slots=True)
class LayerPlace:
    """Where a layer is unpacked: everything is written below the private `directory`.

    `form` is what is written beside the index: with "tree" the layer's tree, with "order" the order
    of the contents in the archive, for `publisher.layers.replay`.
    """

    form: Form
    directory: Path

    @property
    def layer(self) -> Path:
        """The directory that becomes the published layer."""
        return self.directory / "layer"

    @property
    def tree(self) -> Path:
        """The layer's tree."""
        return self.layer / layout.LAYER_TREE

    @property
    def index(self) -> Path:
        """The layer's index."""
        return self.layer / layout.LAYER_INDEX

    @property
    def tar_split(self) -> Path:
        """The layer's tar-split data, which not every layer has."""
        return self.layer / layout.LAYER_TAR_SPLIT

    @property
    def packages(self) -> Path:
        """The record of the layer's packages, which not every layer has."""
        return self.layer / layout.LAYER_PACKAGES

    @property
    def order(self) -> Path:
        """The order of the contents in the archive."""
        return self.directory / "order"

    @property
    def temporary(self) -> Path:
        """The directory of a worker process' temporary files."""
        return self.directory / "temporary"


class Sink(TreeSink, Protocol):
    """A `TreeSink` that is closed at the end."""

    @property
    def refused(self) -> Mapping[str, int]:
        """How often something was not stored, by its kind."""

    def close(self) -> None:
        """Close all files."""


class StagedFiles(Closing):
    """Creates and writes the files at `place`; `open_sink` opens what receives the entries.

    `kept` keeps the contents of files in memory. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        place: LayerPlace,
        open_sink: Callable[[LayerPlace], Sink],
        kept: ContentsWriter | None = None,
    ) -> None:
        self._place = place
        self.kept = kept
        make_directories(place.tree)
        make_directories(place.index.parent)
        self._tar_split: BinaryIO | None = None
        self.index: BinaryIO = _create(place.index)
        try:
            self.sink = open_sink(place)
        except BaseException:
            self.index.close()
            raise

    @property
    def refused(self) -> Mapping[str, int]:
        """How often the file system did not store something, by its kind."""
        return self.sink.refused

    def open_tar_split(self) -> BinaryIO:
        """Return a new file for the layer's tar-split data."""
        self._tar_split = _create(self._place.tar_split)
        return self._tar_split

    def add_packages(self, record: bytes) -> None:
        """Write the record of the layer's packages."""
        with _create(self._place.packages) as file:
            file.write(record)

    def close(self) -> None:
        """Close all files. On a full disk it may fail to write the rest of one."""
        try:
            if self.kept is not None:
                self.kept.close()
            self.sink.close()
            if self._tar_split is not None:
                self._tar_split.close()
        finally:
            self.index.close()


def _create(file: Path) -> BinaryIO:
    opened = file.open("xb")
    os.fchmod(opened.fileno(), PUBLIC_FILE_MODE)
    return opened


class UnexpectedFile(PublisherError):
    """The process that unpacked a layer left something else than the layer's files."""


def check_files(place: LayerPlace, layer: str) -> None:
    """Check that the files of an unpacked layer are what they should be, and nothing more.

    A worker process that an image has taken over may leave links to other files in their places.

    Args:
        place: Where the layer was unpacked. No process writes there any more.
        layer: The name of the layer in errors.

    Raises:
        UnexpectedFile: Something is missing, or is not of the expected type.
    """
    from publisher.tree.layer_packages import LARGEST  # with all that reads packages

    metadata = place.index.parent
    expected = {
        place.directory: {place.layer.name: stat.S_IFDIR},
        place.layer: {place.tree.name: stat.S_IFDIR, metadata.name: stat.S_IFDIR},
        metadata: {place.index.name: stat.S_IFREG},
    }
    for optional in (place.tar_split, place.packages):
        if os.path.lexists(optional):
            expected[metadata][optional.name] = stat.S_IFREG
    if place.form == "order":
        expected[place.directory][place.order.name] = stat.S_IFREG
    owner = place.directory.stat().st_uid
    for directory, names in expected.items():
        # Other files beside the layer are deleted with its private directory.
        found = set(names if directory == place.directory else os.listdir(directory))
        for name in names.keys() | found:
            path = directory / name
            if name not in names or not _is_as_made(path, names[name], owner, path == place.tree):
                raise UnexpectedFile(
                    f"cannot use the unpacked {layer}",
                    why=f"{path} is missing, or is not what it should be",
                )
    if os.path.lexists(place.packages) and place.packages.lstat().st_size > LARGEST:
        raise UnexpectedFile(
            f"cannot use the unpacked {layer}",
            why=f"{place.packages} has more than {LARGEST} bytes",
        )


def _is_as_made(path: Path, kind: int, owner: int, is_tree: bool) -> bool:
    """Return whether `path` is what a worker makes there. The image decides about the tree."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    is_shared = kind == stat.S_IFREG and status.st_nlink != 1
    is_private = status.st_uid == owner and not status.st_mode & 0o022
    return stat.S_IFMT(status.st_mode) == kind and not is_shared and (is_tree or is_private)


def open_unpacked_index(place: LayerPlace) -> BinaryIO:
    """Open the index of the layer that was unpacked at `place`, by a path without links.

    Raises:
        OSError: The index, or a directory above it, is missing, or is something else.
    """
    with Directories(place.directory) as directories:
        return directories.open_file(place.index.relative_to(place.directory).as_posix())
