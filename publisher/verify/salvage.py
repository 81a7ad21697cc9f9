"""Read the valid parts of a damaged JSON record: a truncated file, or one with a wrong field. Pure.

Only complete values are used. A number at the end of a truncated file may be incomplete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from publisher.lazy import pattern

_DECODER = json.JSONDecoder()
_SPACE = pattern(r"\s*")


def salvage_fields(data: bytes, keys: Iterable[str]) -> dict[str, object]:
    """Return the readable values of `keys`, at any depth of nesting."""
    text = data.decode("utf-8", "replace")
    found = {}
    for key in keys:
        match = re.search(rf'"{re.escape(key)}"\s*:\s*', text)
        value = _value_at(text, match.end(), ",}") if match else None
        if value is not None:
            found[key] = value[0]
    return found


def salvage_entries(data: bytes, key: str) -> Iterator[dict[str, object]]:
    """Yield the complete objects at the beginning of the list `key`."""
    text = data.decode("utf-8", "replace")
    match = re.search(rf'"{re.escape(key)}"\s*:\s*\[\s*', text)
    position = match.end() if match else len(text)
    while (found := _value_at(text, position, ",]")) is not None:
        value, position = found
        if isinstance(value, dict):
            yield value


def _value_at(text: str, position: int, after: str) -> tuple[object, int] | None:
    """Return the JSON value at `position` and the position of the next one.

    Returns None unless one of the characters `after` follows the value.
    """
    try:
        value, end = _DECODER.raw_decode(text, position)
    except (ValueError, RecursionError):
        return None
    end = _end_of_space(text, end)
    if end >= len(text) or text[end] not in after:
        return None
    return value, _end_of_space(text, end + 1)


def _end_of_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
