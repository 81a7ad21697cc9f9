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


NOT_A_FILE = b"(it is "
"""What a repository reads begins with this where something else is in the place of a file."""


class InvalidRecord(PublisherError):
    """A metadata file does not have the form that its format describes.

    Nothing is removed because of such a record. `path` is the path of the file in the repository,
    `field` the invalid field ("" for the file as a whole).
    """

    def __init__(self, path: str, *, why: str, hint: str = "", field: str = "") -> None:
        super().__init__(f"cannot read {path}", why=why, hint=hint or _HINT)
        self.path = path
        self.field = field


_HINT = "publisher verify --repair"


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
        why = data.decode().strip("()") if data.startswith(NOT_A_FILE) else str(error)
        raise InvalidRecord(path, why=why, hint=hint, field=error.field) from error
