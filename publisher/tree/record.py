"""Shared by all metadata files of the published tree: reading them, and their errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from publisher.codec import Check, Malformed, UnknownVersion
from publisher.errors import PublisherError
from publisher.oci.digest import is_digest

T = TypeVar("T")

# Paths are derived from digests, also those of trees to be deleted, so digests are checked.
Digest = Annotated[str, Check(is_digest, "is not a digest")]


class InvalidRecord(PublisherError):
    """A metadata file does not have the form that its format describes.

    Nothing is removed because of such a record. `path` is the path of the file in the repository,
    `field` the invalid field ("" for the file as a whole). `found` is what is in the place of the
    file ("a directory"), or "".
    """

    def __init__(
        self, path: str, *, why: str, hint: str = "", field: str = "", found: str = ""
    ) -> None:
        super().__init__(f"cannot read {path}", why=why, hint=hint or _HINT)
        self.path = path
        self.field = field
        self.found = found


_HINT = "publisher verify --repair"


class Unreadable(bytes):
    """The content of a record in whose place is no file: empty, with the reason `why`.

    It is equal to no content of a file, and no record can be read from it.
    """

    why: str

    def __new__(cls, why: str) -> Unreadable:
        """Return the empty content."""
        content = super().__new__(cls)
        content.why = why
        return content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unreadable) and other.why == self.why

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.why)


class UnsupportedRecord(InvalidRecord):
    """A metadata file was written by another program, or by a later release."""


def read_record(parse: Callable[[bytes], T], data: bytes, path: str, hint: str = "") -> T:
    """Return the result of `parse` for a file's bytes, and convert its errors.

    Args:
        parse: Reads the bytes; raises Malformed.
        data: The bytes.
        path: The file's place in the repository, for errors.
        hint: The remedy for a damaged file, if it is not `publisher verify --repair`.

    Raises:
        UnsupportedRecord: The file has a version that this program does not read.
        InvalidRecord: The file is damaged.
    """
    try:
        return parse(data)
    except UnknownVersion as error:
        raise UnsupportedRecord(
            path,
            why=str(error),
            hint="use the release that wrote it, or a newer one; without one, `publisher verify` "
            "names what helps",
            field=error.field,
        ) from error
    except Malformed as error:
        why = data.why if isinstance(data, Unreadable) else str(error)
        raise InvalidRecord(path, why=why, hint=hint, field=error.field) from error
