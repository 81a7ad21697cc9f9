"""A base of objects that are closed at the end of a `with` statement."""

from __future__ import annotations

from typing import Self


class Closing:
    """A context manager that closes itself: subclasses define `close`."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close everything. May be called again."""
        raise NotImplementedError
