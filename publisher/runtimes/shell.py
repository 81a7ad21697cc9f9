"""Quoting for POSIX shell scripts. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from publisher.lazy import pattern

_NAME = pattern(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def quote(text: str) -> str:
    """Return `text` quoted as one word of a POSIX shell."""
    return shlex.quote(text)


def words(values: Sequence[str]) -> str:
    """Return `values` as words of a POSIX shell command."""
    return " ".join(map(quote, values))


def is_variable_name(text: str) -> bool:
    """Return whether `text` can be the name of a shell variable."""
    return _NAME.match(text) is not None
