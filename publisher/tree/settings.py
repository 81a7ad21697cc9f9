"""repository.json: the settings of the whole repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from posixpath import normpath
from typing import Annotated

from publisher.codec import Check, Codec, omit_default
from publisher.lazy import dataclass
from publisher.tree.record import read_record

VERSION = 1


def is_mount(path: str) -> bool:
    """Return whether clients can mount the repository at `path`: absolute and in normal form."""
    is_absolute = path.startswith("/") and not path.startswith("//")
    return is_absolute and path.isprintable() and normpath(path) == path != "/"


_MOUNT = Check(lambda text: not text or is_mount(text), "is not an absolute path in normal form")


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """The settings of a repository.

    `policy` holds the options that differ from the defaults; `publisher.layers.policy` defines
    them. `mount` is the absolute path at which clients mount the repository; "" is its own path.
    `extra` keeps keys that this release does not know.
    """

    policy: Mapping[str, object] = field(default_factory=dict)
    mount: Annotated[str, _MOUNT] = omit_default("")
    extra: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, path: str) -> RepositorySettings:
        """Read the file's bytes; `path` names it in InvalidRecord."""
        return read_record(_CODEC.parse, data, path)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return _CODEC.dump(self)


_CODEC = Codec(RepositorySettings, version=VERSION, extra="extra")
