"""The record of the names that use an image."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.codec import Codec
from publisher.tree.record import Digest, read_record

VERSION = 1


@dataclass(frozen=True, slots=True)
class ImageUsers:
    """The (name, manifest digest) pairs that use one image ID, published or scheduled.

    It corresponds to the `Origin` of a layer. Several manifests can have one image ID.
    """

    users: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def parse(cls, data: bytes, path: str) -> ImageUsers:
        """Read the file's bytes; `path` names it in InvalidRecord."""
        users = read_record(_CODEC.parse, data, path).users
        return cls(frozenset((user.name, user.manifest_digest) for user in users))

    def to_bytes(self) -> bytes:
        """Return the file's bytes: sorted, so that equal records are equal files."""
        return _CODEC.dump(_Users(tuple(_User(*user) for user in sorted(self.users))))


@dataclass(frozen=True, slots=True)
class _User:
    name: str
    manifest_digest: Digest


@dataclass(frozen=True, slots=True)
class _Users:
    users: tuple[_User, ...]


_CODEC = Codec(_Users, version=VERSION)
