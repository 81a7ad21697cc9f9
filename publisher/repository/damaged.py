"""Reading records that may be damaged: for repairs, and for comparisons of contents."""

from __future__ import annotations

from typing import Protocol

from publisher.tree.record import InvalidRecord, Unreadable


class Readable(Protocol):
    """What has small files: a repository, or a view of one."""

    def read(self, path: str) -> bytes | None:
        """Return the content of a small file; raise InvalidRecord for another kind of entry."""


def read_damaged(tree: Readable, path: str) -> bytes | None:
    """Return the content of a small file; None if it is missing.

    Another kind of entry in its place, such as a directory, is returned as `Unreadable`.

    Raises:
        InvalidRecord: This user may not read it.
    """
    try:
        return tree.read(path)
    except InvalidRecord as error:
        if not error.found:
            raise
        return Unreadable(error.why)
