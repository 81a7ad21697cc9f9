"""A message as the text that services show. Pure.

Names and causes come from registries and wish lists. Services interpret markup, links behind text,
and mentions that alert every member of a channel: these characters are replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from publisher.errors import printable
from publisher.lazy import pattern

_MOST_LINES = 40
_LONGEST_LINE = 300
_MENTION = pattern(r"@(?!sha(?:256|512):[0-9a-f])")  # except in front of a digest
_MARKUP = str.maketrans("<>[]`*|~", "()()'+/-")


def plain(text: str) -> str:
    """Return text from outside in one line, without what services interpret as markup."""
    text = printable(text).translate(_MARKUP)
    text = _MENTION.sub("(at)", text)
    return text if len(text) <= _LONGEST_LINE else text[: _LONGEST_LINE - 1] + "…"


def title_of(value: Mapping[str, Any]) -> str:
    """Return the title of a message: what happened how often, and where."""
    counts = ", ".join(f"{count} {kind}" for kind, count in value["counts"].items())
    return plain(f"publisher {value['command']}: {counts} ({value['repository']})")


def body_of(value: Mapping[str, Any]) -> str:
    """Return the text of a message: one line for each event, of very many the first ones."""
    lines = [_line(event) for event in value["events"][:_MOST_LINES]]
    more = sum(value["counts"].values()) - len(lines)
    if more > 0:
        lines.append(f"and {more} more")
    return "\n".join([*lines, plain(f"on {value['host']}, {value['time']}")])


def kind_of(value: Mapping[str, Any]) -> str:
    """Return how a service shows the message: "failure", "success" or "info"."""
    counts = value["counts"]
    if counts.keys() & {"failed", "found"}:
        return "failure"
    return "success" if counts.keys() & {"published", "recovered"} else "info"


def _line(event: Mapping[str, Any]) -> str:
    text = f"{event['event']}: {event['subject']}"
    if event.get("text"):
        text += f": {event['text']}"
    if event.get("line"):
        text += f" ({event.get('wishList') or '-'}:{event['line']})"
    return plain(text)
