"""One thing inside a layer or a root filesystem, as a value; and what receives a stream of them."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


class EntryType(enum.StrEnum):
    """What an entry is. The letters are those of `find -printf %y`, and of the layer index."""

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
    """One entry of a layer, after its names were made safe and policy was applied.

    `path` is relative, without `.`, `..`, empty components or a trailing slash; bytes that are not
    UTF-8 are kept by `surrogateescape`. The root directory itself is "". `mode` holds the
    permission bits only (07777), `size` is in bytes, `mtime_ns` in nanoseconds since 1970 (may be
    negative). `target` is a symlink's text, kept exactly, or the path that a HARDLINK names.
    `sha256` is the bare hex digest of a file's content. `opaque` marks a directory that hides
    everything lower layers have below it. `implicit` marks a directory that the archive implied but
    had no entry for. `dropped` names what policy took away ("setuid", "xattr:security.capability").
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


class TreeSink(Protocol):
    """Receives the entries of one tree in archive order, and makes of them what its owner needs.

    A later entry replaces an earlier one of the same path. Nothing a sink does may reach outside
    its own tree, whatever the entries say.
    """

    def add(self, entry: Entry, content: Iterable[bytes | memoryview] = ()) -> None:
        """Take `entry`; `content` holds a file's bytes, `entry.size` of them, and is read at once."""

    def finish(self) -> None:
        """Set what must be set last (directories' times and modes); the tree is then complete."""
