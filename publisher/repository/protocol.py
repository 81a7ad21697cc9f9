"""The interface of a published file system: reading it, and the transactions that change it.

Reading never takes a lock and never changes anything. Changes are made by a `Transaction`, which
has six operations: add content, link a path to content, add a file, replace a small file or
symlink, remove a path, commit (or abort). Content is staged first, invisible to readers, which
takes long and needs no lock. The commit needs the writer lock, is short, and makes the changes
visible.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

from publisher.entry import Entry, EntryType, Fixup, Generated, Merged, TreeSink
from publisher.repository.layer_files import LayerPlace
from publisher.tree.history import Record
from publisher.tree.layout import RepositoryURL

if TYPE_CHECKING:  # most commands unpack no layer
    from publisher.layers.kept_contents import ContentsWriter


class Found(Protocol):
    """One entry of a published tree as it is stored; valid until the iterator advances.

    `entry` has no digest, and its `links` counts all names, also those outside the tree. Two
    entries with equal `identity` are hard links to one file, with the same content and metadata.

    It is a Protocol because the backends import this module, so it cannot import the class of a
    backend (`directory.survey.FoundOnDisk`); a backend that keeps no files needs one of its own.
    """

    @property
    def entry(self) -> Entry:
        """Its metadata, without its content."""

    @property
    def identity(self) -> object:
        """Equal for two hard links to one file."""

    def sha256(self) -> str:
        """Read the file's content, and return its SHA-256 digest in hex without a prefix."""


class LayerFiles(Protocol):
    """The files that a layer is unpacked to."""

    @property
    def sink(self) -> TreeSink:
        """Where the layer's entries are written."""

    @property
    def index(self) -> BinaryIO:
        """Where the layer's index is written."""

    @property
    def refused(self) -> Mapping[str, int]:
        """How often the file system could not store something, by kind.

        The kinds are a whiteout, an opaque marker, an attribute.
        """

    @property
    def kept(self) -> ContentsWriter | None:
        """What keeps the contents of files in memory, of which it learns the order here."""

    def open_tar_split(self) -> BinaryIO:
        """Return a new file for the layer's tar-split data. If it is left empty, it is removed."""

    def add_packages(self, record: bytes) -> None:
        """Write the record of the layer's packages (`tree.layer_packages`)."""


class LayerStage(Protocol):
    """Private space in which one layer is unpacked, until `finish`."""

    @property
    def place(self) -> LayerPlace | None:
        """Where another process can unpack the layer; None if only this process can."""

    def memory(self, blob_size: int) -> AbstractContextManager[int | None]:
        """Provide the descriptor of memory for the layer's contents, or None.

        The layer is unpacked within the block, by whichever process. `blob_size` is in bytes.
        """

    def open_files(self) -> AbstractContextManager[LayerFiles]:
        """Create the files of the layer in this process; the caller closes them before `finish`."""

    def keep(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """Yield the blob's chunks unchanged.

        A backend that sends the blob at the commit, instead of unpacking it now, stores a copy.

        Raises:
            PublisherError: There is no space for the copy.
        """

    def open_index(self) -> BinaryIO:
        """Open the index of the unpacked layer for reading; the caller closes it."""

    def finish(self) -> None:
        """Keep the layer, complete and verified, for the transaction that publishes it.

        Raises:
            UnexpectedFile: The files of the layer are not what they should be.
        """


class Transaction(Protocol):
    """One atomic change. Without `commit`, the repository is unchanged after the `with` block.

    Prepare content first (`link`); then, inside `exclusive()`, read the current state, add the
    remaining changes and commit.
    """

    def link(
        self,
        path: str,
        plan: Iterable[Merged | Generated],
        layers: Sequence[str],
        *,
        anew: bool = False,
    ) -> Mapping[str, int]:
        """Prepare a tree at `path` whose files are links to content of the layer trees.

        Args:
            path: Where the tree is published.
            plan: The entries of the tree; they refer to layers by their position in `layers`.
            layers: Layer digests from bottom to top, each published or staged.
            anew: Whether to replace a tree that is already published at `path`; otherwise it stays.

        Returns:
            How often the file system could not store something, by kind: a hard link that became a
            copy, an attribute.

        Raises:
            RepositoryChanged: A layer is no longer published or staged.
        """

    def adopt(self, prepared: Self) -> None:
        """Also publish the content that `link` and `add_file` prepared in another transaction.

        The other one stays open and unchanged until this one ends, and can still be committed if
        this one is not.

        Raises:
            RepositoryChanged: The two were linked from different trees of one layer.
        """

    def exclusive(self) -> AbstractContextManager[None]:
        """Take the writer lock; first recover what an ended process left.

        Inside the block no other process commits, and records do not change.

        Raises:
            RepositoryBusy: Another process held the lock for longer than the time to wait.
            RepositoryError: An interrupted transaction cannot be finished.
        """

    def add_layer(
        self,
        digest: str,
        fixups: Iterable[Fixup],
        layers: Sequence[str],
        *,
        anew: bool = False,
    ) -> None:
        """Publish a staged layer. Only inside `exclusive()`.

        Args:
            digest: The layer's digest.
            fixups: What its tree needs from the layers below it.
            layers: The layer digests that `fixups` refer to, from bottom to top.
            anew: Whether the staged layer replaces one that is already published; otherwise the
                published one stays and the staged one is discarded.

        Raises:
            RepositoryChanged: The layer is neither published nor staged any more.
        """

    def add_file(self, path: str, write: Callable[[Path], None]) -> None:
        """Prepare a file of any size at `path`, also in place of a published one.

        Args:
            path: Where the file is published.
            write: Fills the empty file at the private place that it is given.
        """

    def replace(self, path: str, content: bytes, *, last: bool = False) -> None:
        """Create or replace a small file; with `last`, after all other changes are visible.

        A directory in the place of a record (`layout.is_own_file`) is replaced as well, with all
        that is in it. Another one is never: the commit raises PathTaken.
        """

    def symlink(self, path: str, text: str) -> None:
        """Create or replace a symlink."""

    def remove(self, path: str) -> None:
        """Remove a file, a symlink or a whole tree; a missing path is ignored."""

    def record(self, name: str, what: str, why: str = "") -> None:
        """Add a change of the image or layer `name` to the history.

        Args:
            name: The name of an image, or the digest of a layer.
            what: The change, in one word ("published").
            why: The reason, or "".
        """

    def commit(self) -> None:
        """Make all changes visible. Only inside `exclusive()`.

        Raises:
            RepositoryError: The change cannot be published.
            RepositoryChanged: Another process removed or changed what the transaction depends on.
        """


class Repository(Protocol):
    """A published file system. Paths are relative to its root, as in `tree.layout`."""

    @property
    def url(self) -> RepositoryURL:
        """The URL of the repository."""

    @property
    def keeps_xattrs(self) -> bool:
        """Whether layer trees can store the attribute that marks a directory as opaque."""

    @property
    def local_root(self) -> Path | None:
        """The directory in which this machine reads all published content; None without one."""

    def read(self, path: str) -> bytes | None:
        """Return the content of a small file; None if it is missing.

        Raises:
            InvalidRecord: This user may not read it, or another kind of entry, such as a directory,
                is in its place.
        """

    def link_text(self, path: str) -> str | None:
        """Return the target of a symlink, as it is stored; None if the symlink is missing.

        Raises InvalidRecord if this user may not look into the directory above it.
        """

    def content(self, path: str) -> Iterator[bytes]:
        """Yield the content of a published file of any size, in pieces.

        Raises:
            FileNotFoundError: It is missing.
            RepositoryError: Contents cannot be read, since the repository is not mounted.
        """

    def exists(self, path: str) -> bool:
        """Return whether `path` exists. Symlinks are not followed: a dangling one exists."""

    def kind(self, path: str) -> EntryType | None:
        """Return the type of the entry at `path`, not following symlinks; None if it is missing."""

    def identity(self, path: str) -> object | None:
        """Equal for two hard links to one file; None where that is unknown."""

    def children(self, path: str) -> list[str]:
        """Return the names in the directory `path`, sorted; empty if there is no such directory."""

    def names(self) -> Iterator[str]:
        """Yield the names of all published images, sorted.

        A directory that this user may not look into is yielded as well, as if it were an image:
        names below it are unknown, and reading its manifest raises InvalidRecord. One of which this
        user only may not list the names raises PermissionError.
        """

    def walk(self, path: str) -> Iterator[Found]:
        """Yield all entries of the tree at `path`, its root (as "") first, in index order."""

    def unfinished(self) -> bool:
        """Return whether a committed transaction is not yet finished."""

    def history(self, damaged: Callable[[str], None] | None = None) -> Iterator[Record]:
        """Yield the past transactions, the latest first, as far back as they are kept.

        Args:
            damaged: Called with a text about each damaged file, of which only a part is known; by
                default it is logged.

        Raises:
            RepositoryError: This user may not read them.
        """

    def free_space(self) -> int | None:
        """Return how many bytes can still be stored; None where that is unknown."""

    def reserve_space(
        self, layers: Mapping[str, int], keep_waiting: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Reserve space to stage those of an image's `layers` that are not published.

        Args:
            layers: Sizes in bytes by digest.
            keep_waiting: Called repeatedly while this waits for space that other images hold; an
                exception from it ends the wait.
        """

    def discard_staged(self, keep: Collection[str]) -> int:
        """Delete staged layers to free their space; they are fetched again where they are needed.

        Nothing is deleted while another process has opened the repository for writing, since it
        may need any of them.

        Args:
            keep: The digests of layers that stay.

        Returns:
            How many layers were deleted.
        """

    def has_layer(self, digest: str) -> bool:
        """Return whether the layer is published or staged, so that it need not be fetched."""

    def open_index(self, digest: str) -> BinaryIO:
        """Open the index of a published or staged layer; the caller closes it.

        Raises:
            RepositoryChanged: The layer is neither published nor staged.
        """

    def has_tar_split(self, digest: str) -> bool:
        """Return whether a published or staged layer has tar-split data."""

    def layer_packages(self, digest: str) -> bytes | None:
        """Return the record of a published or staged layer's packages; None without one.

        Raises:
            InvalidRecord: This user may not read it.
        """

    def stage_layer(self, digest: str) -> AbstractContextManager[LayerStage]:
        """Begin to unpack a layer, which is discarded unless `finish` is called."""

    def transaction(self, purpose: str) -> AbstractContextManager[Transaction]:
        """Begin a change; `purpose` is shown to waiting processes ("ingest of …")."""

    def close(self) -> None:
        """Delete the private staging space. Finished layers stay for the next run."""
