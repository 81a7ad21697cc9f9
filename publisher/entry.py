"""Entries of layers and root file systems, and the protocol of their receivers."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Protocol

from publisher.lazy import dataclass


class EntryType(enum.StrEnum):
    """The type of an entry. The letters are those of `find -printf %y` and of the layer index."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"
    HARDLINK = "h"
    FIFO = "p"
    CHARACTER_DEVICE = "c"
    BLOCK_DEVICE = "b"
    WHITEOUT = "w"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a layer, with safe names, as policy allows it.

    `path` is relative, without `.`, `..`, empty components or a trailing slash; bytes that are not
    UTF-8 are kept by `surrogateescape`. The root directory itself is "". `mode` holds the
    permission bits only (07777), `size` is in bytes, `mtime_ns` in nanoseconds since 1970 (may be
    negative). `target` is a symlink's text, kept exactly, or the path that a HARDLINK names.
    `sha256` is the bare hex digest of a file's content. `opaque` marks a directory that hides
    everything lower layers have below it. `implicit` marks a directory that the archive implied but
    had no entry for. `dropped` names what policy removed ("setuid", "xattr:security.capability").
    `links` counts the names that a file, symlink or FIFO has in its tree.

    A HARDLINK carries mode, owner, size, time and digest of what it names, which comes before it in
    sorted order. One whose target lies only in a lower layer (`is_unresolved`) has none of these.
    """

    path: str
    type: EntryType
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    target: str = ""
    sha256: str = ""
    device: tuple[int, int] | None = None
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    opaque: bool = False
    implicit: bool = False
    dropped: tuple[str, ...] = ()
    links: int = 1

    @property
    def is_unresolved(self) -> bool:
        """Whether this is a hard link whose target is in a lower layer."""
        return self.type is EntryType.HARDLINK and self.links == 0


def sort_key(path: str) -> bytes:
    """Return the key that sorts paths component by component, each by its bytes.

    The slash becomes a zero byte, which no name contains, so that a directory comes directly before
    its entries.
    """
    return path.encode("utf-8", "surrogateescape").replace(b"/", b"\0")


@dataclass(frozen=True, slots=True)
class Merged:
    """One entry of a flat image, and the place of its content.

    `layer` is the number of the layer (from 0, bottom to top) in whose tree it is found at the path
    `source`. A HARDLINK's target is a path of the flat image, and comes before it.
    """

    entry: Entry
    layer: int
    source: str


@dataclass(frozen=True, slots=True)
class Generated:
    """An entry of a flat image that is in no layer: a directory, symlink, or file of `content`."""

    entry: Entry
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class FlatPlan(Iterable[Merged | Generated]):
    """The plan of a flat image: `plan` returns its entries, sorted, each time that it is called.

    It consists of the indexes of its layers, which have `entries` together, and of those of
    `generated` that the layers leave space for. Another process can make it again from these.
    """

    entries: int
    generated: Sequence[Generated]
    plan: Callable[[], Iterator[Merged | Generated]]

    def __iter__(self) -> Iterator[Merged | Generated]:
        return self.plan()


@dataclass(frozen=True, slots=True)
class Fixup:
    """A change of a layer's tree that the layers below it make necessary.

    `entry` is a WHITEOUT to be added; a DIRECTORY to be given metadata and opaqueness; or something
    else to be copied, with its metadata, from `source` in the tree of the lower layer `layer`.
    """

    entry: Entry
    layer: int | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Hole:
    """`size` bytes of a sparse file that are not stored. They read as zeros."""

    size: int


Content = Iterable[bytes | memoryview | Hole]
"""The content of a file in pieces, from its beginning to its end."""


def only_piece(content: Content) -> bytes | memoryview | None:
    """Return the content of a small file, which is a tuple of one piece; None for other contents.

    What handles it needs no generator, as most files of an image are small.
    """
    if not isinstance(content, tuple) or len(content) != 1:
        return None
    [piece] = content
    return None if isinstance(piece, Hole) else piece


class TreeSink(Protocol):
    """Receives the entries of one tree, in the archive's order.

    Every parent is added before its children, and is always a directory. A HARDLINK names something
    that was added before and still exists. A later entry replaces an earlier one of the same path,
    with everything below it, except that a directory only replaces a directory's metadata.
    Whiteouts and opaque directories come last. Whatever the entries contain, a sink changes nothing
    outside its own tree.
    """

    def add(self, entry: Entry, content: Content = ()) -> None:
        """Add `entry`; `content` has a file's `entry.size` bytes, and must be read at once."""

    def finish(self) -> None:
        """Complete the tree: set what must be set last (directories' times and modes)."""
