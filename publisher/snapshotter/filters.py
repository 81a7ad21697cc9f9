"""Filters of the List method: `labels."a.b"==x,parent=="y"`. Pure.

The syntax is that of containerd's filters: selectors that all have to match are joined by commas;
a selector is the path of a field, and optionally "==", "!=" or "~=" (a regular expression) with a
value. Values, and the parts of a path, may be quoted as in Go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from publisher.lazy import pattern
from publisher.snapshotter.model import InvalidArgument, Snapshot

Filter = Callable[[Snapshot], bool]

_FIELD = pattern(r"[A-Za-z][A-Za-z0-9_]*")
_OPERATOR = pattern(r"==|!=|~=")
_VALUE = pattern(r"[^\s,\"]+")
_QUOTED = pattern(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = pattern(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def parse_filters(texts: Iterable[str]) -> Filter:
    """Return whether a snapshot matches any of `texts`; without texts, each one does.

    Raises:
        InvalidArgument: A text is not a filter.
    """
    filters = [_parse(text) for text in texts]
    return lambda snapshot: not filters or any(each(snapshot) for each in filters)


def _parse(text: str) -> Filter:
    selectors = []
    position = 0
    while position < len(text):
        path, position = _path(text, position)
        operator = _OPERATOR.match(text, position)
        if operator is None:
            selectors.append(_selector(path, "", ""))
        else:
            value, position = _value(text, operator.end())
            selectors.append(_selector(path, operator.group(), value))
        if position < len(text):
            if text[position] != "," or position + 1 == len(text):
                raise _invalid(text, f"unexpected {text[position]!r} at {position + 1}")
            position += 1
    return lambda snapshot: all(selector(snapshot) for selector in selectors)


def _path(text: str, position: int) -> tuple[list[str], int]:
    parts = []
    while True:
        quoted = _QUOTED.match(text, position)
        found = quoted or _FIELD.match(text, position)
        if found is None:
            raise _invalid(text, f"expected a field at {position + 1}")
        parts.append(_unquote(quoted.group(1)) if quoted else found.group())
        position = found.end()
        if not text.startswith(".", position):
            return parts, position
        position += 1


def _value(text: str, position: int) -> tuple[str, int]:
    quoted = _QUOTED.match(text, position)
    found = quoted or _VALUE.match(text, position)
    if found is None:
        raise _invalid(text, f"expected a value at {position + 1}")
    return (_unquote(quoted.group(1)) if quoted else found.group()), found.end()


def _selector(path: list[str], operator: str, value: str) -> Filter:
    if operator == "":
        return lambda snapshot: _look_up(snapshot, path) is not None
    if operator == "==":
        return lambda snapshot: _look_up(snapshot, path) == value
    if operator == "!=":
        return lambda snapshot: (_look_up(snapshot, path) or "") != value
    try:
        pattern = re.compile(value)
    except re.error as error:
        raise _invalid(value, f"not a regular expression: {error}") from error
    return lambda snapshot: pattern.search(_look_up(snapshot, path) or "") is not None


def _look_up(snapshot: Snapshot, path: list[str]) -> str | None:
    first, *others = path
    if first == "labels":
        return snapshot.labels.get(".".join(others))
    fields = {
        "kind": snapshot.kind.name.lower(),
        "name": snapshot.name,
        "parent": snapshot.parent,
    }
    return fields.get(first)


def _unquote(text: str) -> str:
    def replacement(match: re.Match[str]) -> str:
        escape = match.group(1)
        if escape[0] in "xuU":
            return chr(int(escape[1:], 16))
        if len(escape) == 3:
            return chr(int(escape, 8))
        return _SIMPLE.get(escape, escape)

    return _ESCAPE.sub(replacement, text)


def _invalid(text: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"cannot use the filter {text!r}", why=why)
