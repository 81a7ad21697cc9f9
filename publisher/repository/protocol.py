"""The published filesystem: what reads it, and the transactions that change it.

Reading never takes a lock and never changes anything. Changing goes through a `Transaction`, which
knows five verbs: add content, link a path to content, replace a small file or symlink, remove a
path, commit (or abort). Content is staged out of readers' sight first, which takes long and
excludes nobody; the commit is exclusive, short, and the one moment of visibility.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from publisher.entry import Entry, EntryType, Fixup, Generated, Merged, TreeSink
from publisher.tree.history import Record
from publisher.tree.layout import RepositoryURL


class Found(Protocol):
    """One thing in a published tree, as it lies there. Good until the next one is asked for.

    `entry` has no digest, and its `links` counts names wherever they are. What has the same
    `identity` has the same content and metadata: it is one thing by two names.
    """

    @property
    def entry(self) -> Entry:
        """What can be seen of it without reading it."""

    @property
    def identity(self) -> object:
        """Equal for two names of one thing."""

    def sha256(self) -> str:
        """The bare hex digest of a file's content, which is read for it."""


class LayerStage(Protocol):
    """A place where one layer is unpacked, private until `finish`."""

    @property
    def sink(self) -> TreeSink:
        """Takes the layer's entries."""

    @property
    def index(self) -> BinaryIO:
        """Takes the layer's index."""

    def keep(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """Pass on the blob as it comes; who sends it later instead of unpacking it now keeps it."""

    def finish(self) -> Mapping[str, int]:
        """Keep the layer, complete and verified, for the transaction that publishes it.

        Returns how often, by its kind, the filesystem would not store what it should: a whiteout,
        an opaque marker, an attribute.
        """


class Transaction(Protocol):
    """One atomic change. Leaving its `with` block without `commit` leaves the repository as it was.

    Prepare content first (`link`); then, inside `exclusive()`, read the current state, say the rest
    and commit.
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

        `layers` holds layer digests from bottom to top, each published or staged; `plan` names them
        by number. Raises RepositoryChanged when one of them is neither any more. A tree that is at
        `path` already stays, unless `anew` says to replace it. The result counts, by kind, what the
        filesystem refused: a hard link became a copy, an attribute is not there.
        """

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep every other writer out, having finished or discarded what a dead one left."""

    def add_layer(
        self,
        digest: str,
        fixups: Iterable[Fixup],
        layers: Sequence[str],
        *,
        anew: bool = False,
    ) -> None:
        """Publish a staged layer, completed by what `fixups` takes from the layers below it.

        One that is published already stays, and what is staged of it is given up, unless `anew`
        says to replace it by the staged one.
        """

    def replace(self, path: str, content: bytes, *, last: bool = False) -> None:
        """Create or replace a small file; `last`: only once all else that is new is visible."""

    def symlink(self, path: str, text: str) -> None:
        """Create or replace a symlink."""

    def remove(self, path: str) -> None:
        """Remove a file, a symlink or a whole tree; what is not there needs no removing."""

    def record(self, name: str, what: str, why: str = "") -> None:
        """Say for the history what happens to the image or layer `name`, and why."""

    def commit(self) -> None:
        """Make it all visible. Only inside `exclusive()`."""


class Repository(Protocol):
    """A published filesystem. Paths are relative to its root, as `tree.layout` gives them."""

    @property
    def url(self) -> RepositoryURL:
        """Which repository this is."""

    @property
    def keeps_xattrs(self) -> bool:
        """Whether layer trees can say by an attribute that a directory is opaque."""

    def read(self, path: str) -> bytes | None:
        """A small file's bytes; None where there is none."""

    def link_text(self, path: str) -> str | None:
        """A symlink's text; None where there is none."""

    def exists(self, path: str) -> bool:
        """Whether anything is at `path` (a symlink counts, whatever it points to)."""

    def kind(self, path: str) -> EntryType | None:
        """What is at `path`, without following a link there; None where nothing is."""

    def identity(self, path: str) -> object | None:
        """Equal for two paths that are names of one thing; None where that cannot be told."""

    def children(self, path: str) -> list[str]:
        """The names in the directory `path`, sorted; none where there is no such directory."""

    def names(self) -> Iterator[str]:
        """Every published image's name, sorted."""

    def walk(self, path: str) -> Iterator[Found]:
        """Everything in the tree at `path`, itself first (as ""), sorted like a layer index."""

    def unfinished(self) -> bool:
        """Whether a committed transaction waits to be carried out to its end."""

    def history(self) -> Iterator[Record]:
        """What transactions did here, the latest first, as far back as it is kept."""

    def free_space(self) -> int | None:
        """How many bytes can still be stored; None where that cannot be told."""

    def reserve_space(
        self, layers: Mapping[str, int], keep_waiting: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Reserve space to stage those of an image's `layers` that are not published.

        Args:
            layers: Sizes in bytes by digest.
            keep_waiting: Called repeatedly while this waits for space that other images hold; an
                exception from it ends the wait.
        """

    def has_layer(self, digest: str) -> bool:
        """Whether the layer need not be fetched: it is published, or staged by an earlier run."""

    def open_index(self, digest: str) -> BinaryIO:
        """The index of a published or staged layer; RepositoryChanged where there is neither."""

    def stage_layer(self, digest: str) -> AbstractContextManager[LayerStage]:
        """Begin to unpack a layer; without `finish` nothing of it is kept."""

    def transaction(self, purpose: str) -> AbstractContextManager[Transaction]:
        """Begin a change; `purpose` tells others what goes on ("ingest of …")."""

    def close(self) -> None:
        """Let go of private staging space. What is finished stays for the next run."""
