"""Shared by all metadata files of the published tree: reading them, and their errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from publisher.codec import Check, Malformed, UnknownVersion
from publisher.errors import PublisherError
from publisher.oci.digest import is_digest

T = TypeVar("T")

# Places in the tree are made of digests, also of trees that are deleted.
Digest = Annotated[str, Check(is_digest, "is not a digest")]


class InvalidRecord(PublisherError):
    """A metadata file does not have the form that its format describes.

    Nothing is removed on the strength of such a record. `path` is the file's place in the
    repository, `field` the offending field ("" for the file as a whole).
    """

    def __init__(self, path: str, *, why: str, hint: str = "", field: str = "") -> None:
        super().__init__(f"cannot read {path}", why=why, hint=hint or _HINT)
        self.path = path
        self.field = field


_HINT = "publisher verify --repair"


class UnsupportedRecord(InvalidRecord):
    """A metadata file was written by another program, or by a later release."""


def read_record(parse: Callable[[bytes], T], data: bytes, path: str, hint: str = "") -> T:
    """Return what `parse` makes of a file's bytes.

    Args:
        parse: Reads the bytes; raises Malformed.
        data: The bytes.
        path: The file's place in the repository, for errors.
        hint: What to do about a damaged file, if `publisher verify --repair` does not help.

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
        raise InvalidRecord(path, why=str(error), hint=hint, field=error.field) from error
