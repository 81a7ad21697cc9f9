"""The list of files that a program of an image opens, and the file bundle of CVMFS with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from publisher.codec import Check, Codec, omit_default
from publisher.lazy import dataclass
from publisher.tree import layout
from publisher.tree.record import Digest, read_record

VERSION = 1

_LONGEST_DEPENDENCY = 4000
"""The most bytes of a path that a client passes to its fetching threads (less than PIPE_BUF)."""


def is_inside(path: str) -> bool:
    """Return whether `path` is a path of a file, relative to the root of an image."""
    return not {"", ".", ".."} & set(path.split("/")) and "\0" not in path


_PATH = Check(is_inside, "is not a relative path")
_TRIGGER = Check(lambda path: not path or is_inside(path), "is not a relative path")


@dataclass(frozen=True, slots=True)
class HotFile:
    """A file that was opened: its path in the image, without symlinks, and its size in bytes."""

    path: Annotated[str, _PATH]
    size: int


@dataclass(frozen=True, slots=True)
class HotFiles:
    """The files of an image that `command` opened, in the order in which it first opened them.

    `left_out` and `left_out_bytes` count the files for which the limit left no space. `trigger` is
    the file beside which the list is published as a file bundle of CVMFS, or "".
    """

    image_id: Digest
    command: tuple[str, ...]
    traced_at: datetime
    files: tuple[HotFile, ...]
    left_out: int = 0
    left_out_bytes: int = 0
    trigger: Annotated[str, _TRIGGER] = omit_default("")

    @classmethod
    def parse(cls, data: bytes, path: str) -> HotFiles:
        """Read the file's bytes; `path` names it in InvalidRecord."""
        return read_record(_CODEC.parse, data, path)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return _CODEC.dump(self)

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def bundle_path(self) -> str:
        """The path of the bundle in the repository; "" without a bundle."""
        return layout.bundle_file(self.image_id, self.trigger) if self.trigger else ""

    def bundle(self) -> bytes:
        """Return the bytes of the bundle: a JSON document in UTF-8, as CVMFS defines it."""
        value = {
            "name": "CVMFS_BUNDLE",
            "version": "1.0.0",
            "encoding": "UTF-8",
            "dependencies": list(self._dependencies()),
        }
        return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"

    def _dependencies(self) -> Iterator[str]:
        """Yield the paths from the root of the repository, without those that clients cannot read.

        The client opens the trigger itself.
        """
        for file in self.files:
            path = f"/{layout.flat_image(self.image_id)}/{file.path}"
            if file.path != self.trigger and is_bundled(path):
                yield path


def is_bundled(path: str) -> bool:
    """Return whether a bundle can contain `path`: UTF-8, and not too long for clients."""
    try:
        return len(path.encode()) <= _LONGEST_DEPENDENCY
    except UnicodeEncodeError:
        return False


_CODEC = Codec(HotFiles, version=VERSION)
