"""A YAML document as it is written: values with their anchors, comments and blank lines.

PyYAML reads no comments, but its scanner gives the place of every token, and all text between two
tokens is white space and comments. Each comment is therefore found exactly, and belongs to one
item: that on the same line, or the next one. `format_document` in `formatting` writes it again.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import field, replace
from typing import Any

import yaml
from yaml.resolver import Resolver

from publisher.lazy import dataclass, pattern
from publisher.yaml_nodes import STRING

_COMMENT = pattern(r"#[^\r\n\x85\u2028\u2029]*")
_LINE_BREAK = pattern(r"\r\n|[\r\n\x85\u2028\u2029]")


@dataclass(slots=True)
class Value:
    """A scalar, an alias, a list, or a mapping.

    `text` is the content of a scalar, or the name of an alias; `tag` is the scalar's type, and
    `plain` whether it is written without quotes. `after` are the comments behind the last of the
    `items`. With `one_per_line`, a list is never written in brackets. `place` is the line and
    column in the file it was read from, as messages name them.
    """

    kind: type[yaml.Event]
    text: str = ""
    tag: str = ""
    plain: bool = False
    anchor: str | None = None
    items: list[Item] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    flow: bool = False
    one_per_line: bool = False
    place: tuple[int, int] = (0, 0)
    start: int = 0
    end: int = 0
    column: int = 0

    @property
    def is_scalar(self) -> bool:
        """Whether it is a scalar."""
        return self.kind is yaml.ScalarEvent

    @property
    def is_mapping(self) -> bool:
        """Whether it is a mapping."""
        return self.kind is yaml.MappingStartEvent

    @property
    def is_collection(self) -> bool:
        """Whether it is a list or a mapping."""
        return self.kind in (yaml.SequenceStartEvent, yaml.MappingStartEvent)

    def item(self, key: str) -> Item | None:
        """Return the item of a mapping with this key."""
        found = (item for item in self.items if item.key is not None and item.key.text == key)
        return next(found, None)


@dataclass(slots=True)
class Item:
    """An item of a list, or the key and value of a mapping.

    `before` are the comments on lines of their own that precede it, and "" for blank lines;
    `beside` is the comment on its line, with the white space before it.
    """

    value: Value
    key: Value | None = None
    before: list[str] = field(default_factory=list)
    beside: str = ""
    start: int = 0
    column: int = 0

    @property
    def has_comments(self) -> bool:
        """Whether it has comments, itself or within its value."""
        inner = self.value.after or any(item.has_comments for item in self.value.items)
        return bool(self.beside or any(self.before) or inner)


@dataclass(frozen=True, slots=True)
class _Comment:
    start: int
    column: int
    text: str
    gap: str
    """The white space before a comment beside a value."""
    is_alone: bool
    follows_blank_line: bool


@dataclass(frozen=True, slots=True)
class Document:
    """The only document of a file; `is_marked` if it begins with "---".

    `comments` are all its comments, in the order of the file it was read from.
    """

    root: Value
    is_marked: bool = False
    has_aliases: bool = False
    comments: tuple[str, ...] = ()


def read_document(text: str) -> Document:
    """Read a document that `yaml_nodes.load` accepts: it is one document, and not empty."""
    events = yaml.parse(text, Loader=yaml.SafeLoader)
    tokens = list(yaml.scan(text, Loader=yaml.SafeLoader))
    dashes = [token.start_mark for token in tokens if isinstance(token, yaml.BlockEntryToken)]
    document = _Builder(events, dashes).document()
    comments = list(_comments(text, tokens))
    for comment in comments:
        _attach(document.root, comment)
    _add_blank_lines(document.root, text)
    return replace(document, comments=tuple(comment.text for comment in comments))


def scalar(text: str, tag: str = STRING) -> Value:
    """Return a new scalar."""
    return Value(yaml.ScalarEvent, text, tag)


def pair(key: str, value: Value) -> Item:
    """Return a new key of a mapping with its value."""
    return Item(value, scalar(key))


def texts(values: Iterable[str]) -> Value:
    """Return a new list of strings."""
    return Value(yaml.SequenceStartEvent, items=[Item(scalar(value)) for value in values])


def version_2() -> Item:
    """Return the first key of a new list."""
    return pair("version", scalar("2", "tag:yaml.org,2002:int"))


def resolved_tag(text: str, implicit: tuple[bool, bool] = (True, False)) -> str:
    """Return the tag that YAML gives to a scalar; by default to one without quotes."""
    resolver: Any = Resolver()
    return str(resolver.resolve(yaml.ScalarNode, text, implicit))


def comments_of(text: str) -> list[str]:
    """Return the comments of a document in their order."""
    tokens = list(yaml.scan(text, Loader=yaml.SafeLoader))
    return [comment.text for comment in _comments(text, tokens)]


class _Builder:
    """Builds values from PyYAML's events. `dashes` are the places of the "-" of list items."""

    def __init__(self, events: Iterator[yaml.Event], dashes: list[yaml.Mark]) -> None:
        self._events = events
        self._dashes = dashes
        self._has_aliases = False

    def document(self) -> Document:
        next(self._events)
        start: Any = next(self._events)
        root = self._value(next(self._events))
        return Document(root, bool(start.explicit), self._has_aliases)

    def _value(self, event: Any) -> Value:
        mark = event.start_mark
        value = Value(type(event), anchor=event.anchor, start=mark.index, column=mark.column)
        value.place = mark.line + 1, mark.column + 1
        value.end = event.end_mark.index
        if isinstance(event, yaml.AliasEvent):
            self._has_aliases = True
            value.text = str(event.anchor)
        elif isinstance(event, yaml.ScalarEvent):
            value.text, value.plain = event.value, event.style is None
            value.tag = event.tag or resolved_tag(event.value, event.implicit)
        else:
            value.flow = bool(event.flow_style)
            end: Any = next(self._events)
            while not issubclass(type(end), yaml.CollectionEndEvent):
                value.items.append(self._item(end, value))
                end = next(self._events)
            if value.flow:
                value.end = end.end_mark.index
            elif value.items:
                value.end = value.items[-1].value.end
                value.column = value.items[0].column  # an anchor may precede the first item
        return value

    def _item(self, event: Any, parent: Value) -> Item:
        first = self._value(event)
        if parent.is_mapping:
            return Item(self._value(next(self._events)), first, [], "", first.start, first.column)
        if parent.flow:
            return Item(first, None, [], "", first.start, first.column)
        following = bisect.bisect_left(self._dashes, first.start, key=lambda mark: mark.index)
        dash = self._dashes[following - 1]
        return Item(first, None, [], "", dash.index, dash.column)


def _comments(text: str, tokens: list[yaml.Token]) -> Iterator[_Comment]:
    """Yield the comments between the tokens, and those behind the `|` or `>` of a block scalar."""
    position = 0
    for token in tokens:
        yield from _comments_within(text, position, token.start_mark.index)
        position = max(position, token.end_mark.index)
        if isinstance(token, yaml.ScalarToken) and token.style in ("|", ">"):
            header = _LINE_BREAK.search(text, token.start_mark.index)
            yield from _comments_within(
                text, token.start_mark.index, header.start() if header else position
            )


def _comments_within(text: str, start: int, end: int) -> Iterator[_Comment]:
    for match in _COMMENT.finditer(text, start, end):
        line = _start_of_line(text, match.start())
        before = text[line : match.start()]
        yield _Comment(
            match.start(),
            len(before),
            match[0].rstrip(),
            before[len(before.rstrip()) :],
            not before.strip(),
            _follows_blank_line(text, line),
        )


def _start_of_line(text: str, position: int) -> int:
    while position > 0 and not _LINE_BREAK.match(text[position - 1]):
        position -= 1
    return position


def _follows_blank_line(text: str, line: int) -> bool:
    """Return whether the line above the one that starts at `line` is blank."""
    if line == 0:
        return False
    above = line - (2 if text[line - 2 : line] == "\r\n" else 1)
    return not text[_start_of_line(text, above) : above].strip()


def _attach(root: Value, comment: _Comment) -> None:
    """Add a comment to the item that it describes."""
    if comment.is_alone:
        _attach_alone(root, comment)
        return
    owner, value = None, root
    while value.items and (not value.flow or comment.start < value.end):
        started = _started(value, comment)
        if not started:
            break
        owner = value.items[started - 1]
        value = owner.value
    if owner is None:  # behind "---"
        root.items[0].before.append(comment.text) if root.items else root.after.append(comment.text)
    elif owner.beside:
        owner.before.append(comment.text)
    else:
        owner.beside = comment.gap + comment.text


def _attach_alone(value: Value, comment: _Comment, next_column: int = -1) -> None:
    """Add a comment on a line of its own below `value`.

    It belongs to the next item, unless it is indented further: then it ends the list or mapping
    above it. `next_column` is that of the item that follows `value`.
    """
    lines = ["", comment.text] if comment.follows_blank_line else [comment.text]
    started = _started(value, comment)
    if started:
        inner = value.items[started - 1].value
        if started < len(value.items):
            next_column = value.items[started].column
        inside = comment.start < inner.end or (
            not inner.flow and comment.column >= inner.column and comment.column > next_column
        )
        if inner.items and inside:
            _attach_alone(inner, comment, next_column)
            return
    if started < len(value.items):
        value.items[started].before += lines
    else:
        value.after += lines


def _started(value: Value, comment: _Comment) -> int:
    """Return how many items of `value` begin before the comment."""
    return bisect.bisect_right(value.items, comment.start, key=lambda item: item.start)


def _add_blank_lines(value: Value, text: str, line_above: int = -1) -> None:
    """Add a blank line to each item that one precedes; the line of the owner is `line_above`."""
    if value.flow:
        return
    for item in value.items:
        line = _start_of_line(text, item.start)
        if line != line_above and _follows_blank_line(text, line):
            item.before.append("")
        _add_blank_lines(item.value, text, line)
