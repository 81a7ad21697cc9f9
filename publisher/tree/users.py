"""The record of an image ID: the names that use the image, and the version of its flat image."""

from __future__ import annotations

from typing import Annotated

from publisher.codec import Check, Codec, omit_default
from publisher.lazy import dataclass
from publisher.tree.record import Digest, read_record

VERSION = 1

_NOT_NEGATIVE = Check(lambda number: number >= 0, "is negative")


@dataclass(frozen=True, slots=True)
class SquashfsFile:
    """The digest, and the size in bytes, of an image as a single file; and what wrote it.

    Attributes:
        digest: The digest of the file.
        size: Its size in bytes.
        format: The number of the options with which it was written; 0 if an earlier release did.
        compressor: How its content is compressed; "" if an earlier release wrote it.
        program: Name and version of the program that wrote it; "" likewise.
    """

    digest: Digest
    size: Annotated[int, _NOT_NEGATIVE]
    format: Annotated[int, _NOT_NEGATIVE] = omit_default(0)
    compressor: str = omit_default("")
    program: str = omit_default("")


@dataclass(frozen=True, slots=True)
class ImageUsers:
    """The (name, manifest digest) pairs that use one image ID, published or scheduled.

    It corresponds to the `Origin` of a layer. Several manifests can have one image ID.

    Attributes:
        runtime_files: The version of the files that are added to the flat image for runtimes; 0 if
            the image has no flat image, or an earlier release or another tool made it.
        squashfs: The image as a single file; None if there was never one.
    """

    users: frozenset[tuple[str, str]] = frozenset()
    runtime_files: int = 0
    squashfs: SquashfsFile | None = None

    @classmethod
    def parse(cls, data: bytes, path: str) -> ImageUsers:
        """Read the file's bytes; `path` names it in InvalidRecord."""
        record = read_record(_CODEC.parse, data, path)
        users = frozenset((user.name, user.manifest_digest) for user in record.users)
        return cls(users, record.runtime_files, record.squashfs)

    def to_bytes(self) -> bytes:
        """Return the file's bytes: sorted, so that equal records are equal files."""
        users = tuple(_User(*user) for user in sorted(self.users))
        return _CODEC.dump(_Users(users, self.runtime_files, self.squashfs))


@dataclass(frozen=True, slots=True)
class _User:
    name: str
    manifest_digest: Digest


@dataclass(frozen=True, slots=True)
class _Users:
    users: tuple[_User, ...]
    runtime_files: Annotated[int, _NOT_NEGATIVE] = omit_default(0)
    squashfs: SquashfsFile | None = omit_default(None)  # frozen, as its values


_CODEC = Codec(_Users, version=VERSION)
