"""Shell scripts that say exactly what an image's config says. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def quote(text: str) -> str:
    """`text` as one word of a POSIX shell, whatever it holds."""
    return shlex.quote(text)


def words(values: Sequence[str]) -> str:
    """`values` as words of a POSIX shell command."""
    return " ".join(map(quote, values))


def is_variable_name(text: str) -> bool:
    """Whether a shell can hold a variable of this name."""
    return _NAME.match(text) is not None
