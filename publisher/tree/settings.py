"""repository.json: the settings of the whole repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from publisher.codec import Codec
from publisher.tree.record import read_record

VERSION = 1


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """The settings of a repository.

    `policy` holds the options that differ from the defaults; `publisher.layers.policy` defines
    them. `extra` keeps keys that this release does not know.
    """

    policy: Mapping[str, object] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, path: str) -> RepositorySettings:
        """Read the file's bytes; `path` names it in InvalidRecord."""
        return read_record(_CODEC.parse, data, path)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return _CODEC.dump(self)


_CODEC = Codec(RepositorySettings, version=VERSION, extra="extra")
