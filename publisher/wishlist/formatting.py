"""Write wish lists in one form: `publisher fmt`. Comments, anchors and their order are kept.

Only what has several spellings is changed: indentation, quotes, the order of keys, and the names
of images and platforms. ruamel.yaml, the library that keeps comments, keeps the indentation and
quotes as well, moves comments to other items where keys are reordered, and has no notion of a
comment's item; so the document is written here, from `read_document`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import yaml

from publisher.errors import PublisherError
from publisher.lazy import pattern
from publisher.oci.platform import Platform
from publisher.oci.reference import parse_pattern, parse_repository
from publisher.wishlist import version1, version2
from publisher.wishlist.document import (
    Document,
    Item,
    Value,
    comments_of,
    read_document,
    resolved_tag,
)
from publisher.wishlist.model import WishList, WishListError
from publisher.wishlist.parse import parse_wish_list
from publisher.yaml_nodes import STRING, quoted

WIDTH = 100
"""The most characters of a line with a list in brackets."""

_PLAIN = pattern(r"[\w./](?:[\w./@+ -]|:(?! |\Z))*(?<! )")
_NOT_IN_BRACKETS = frozenset(",[]{}")
_KEYS = {"1": version1.KEYS, "2": version2.KEYS}


def format_wish_list(data: bytes, name: str) -> str:
    """Return a wish list in its normal form; its wishes and comments are the same.

    Args:
        data: The content of the file.
        name: The file's name in messages.

    Raises:
        WishListError: The list has an error, which has to be corrected first.
    """
    before = _without_errors(data, name)
    document = read_document(data.decode("utf-8-sig"))
    normalise(document)
    formatted = format_document(document)
    after = _without_errors(formatted.encode(), name)
    same_comments = sorted(document.comments) == sorted(comments_of(formatted))
    if _meaning(before) != _meaning(after) or not same_comments:
        raise PublisherError(
            f"cannot format {name}",
            why="the result would have another meaning or other comments",
            hint="report this list as a defect of the publisher",
        )
    return formatted


def _without_errors(data: bytes, name: str) -> WishList:
    wish_list = parse_wish_list(data, name)
    if wish_list.unusable:
        raise WishListError(
            f"cannot format {name}",
            problems=wish_list.unusable,
            hint=f"correct it first; `publisher check --offline {name}` shows what is wrong",
        )
    return wish_list


def _meaning(wish_list: WishList) -> tuple[object, ...]:
    wishes = [replace(wish, line=0, column=0) for wish in wish_list.wishes]
    return wish_list.version, wish_list.user, wish_list.repository, wishes


# --- spelling -------------------------------------------------------------------------------


def normalise(document: Document) -> None:
    """Order the keys, and write images and platforms in one way."""
    root = document.root
    version = next(
        item.value.text for item in root.items if item.key and item.key.text == "version"
    )
    header, root.items[0].before = root.items[0].before, []
    # An anchor has to precede its aliases.
    keep_order = document.has_aliases
    if not keep_order:
        _order(root, _KEYS[version])
    root.items[0].before = header + root.items[0].before
    for images in filter(None, map(root.item, ("images", "input"))):
        images.value.one_per_line = True
        for item in images.value.items:
            _normalise_wish(item, keep_order)
    defaults = root.item("defaults")
    if defaults is not None:
        _normalise_options(defaults.value, version2.DEFAULT_KEYS, keep_order)
    _move_comments(root)


def _normalise_wish(item: Item, keep_order: bool) -> None:
    wish = item.value
    if wish.is_scalar:
        _respell(wish, _image)
        return
    _normalise_options(wish, version2.WISH_KEYS, keep_order)
    image = wish.item("image")
    if image is not None:
        _respell(image.value, _repository if wish.item("tags") else _image)
        only = len(wish.items) == 1 and not wish.anchor and not wish.after
        if only and not (image.before or (image.beside and item.beside)):
            item.value, item.beside = image.value, image.beside or item.beside


def _normalise_options(options: Value, keys: Sequence[str], keep_order: bool) -> None:
    if not keep_order:
        _order(options, keys)
    platforms = options.item("platforms")
    for item in platforms.value.items if platforms else ():
        _respell(item.value, lambda text: str(Platform.parse(text)))


def _order(mapping: Value, keys: Sequence[str]) -> None:
    mapping.items.sort(key=lambda item: keys.index(item.key.text) if item.key else 0)


def _move_comments(value: Value) -> None:
    """Move comments between the "-" of an item and its first key above the item."""
    for item in value.items:
        _move_comments(item.value)
        mapping = item.value
        if item.key is None and mapping.is_mapping and mapping.items and not mapping.anchor:
            first = mapping.items[0]
            item.before += first.before[item.before[-1:] == [""] == first.before[:1] :]
            first.before = []
            if first.beside and item.beside:
                item.before.append(item.beside.strip())
                item.beside = ""


def _respell(value: Value, spell: Callable[[str], str]) -> None:
    if value.is_scalar and (text := spell(value.text)) != value.text:
        value.text, value.plain = text, False


def _image(text: str) -> str:
    reference, pattern = parse_pattern(text)
    return str(reference) if pattern is None else f"{reference}:{pattern}"


def _repository(text: str) -> str:
    return str(parse_repository(text))


# --- writing --------------------------------------------------------------------------------


def format_document(document: Document) -> str:
    """Return the text of a document."""
    lines = ["---"] if document.is_marked else []
    lines += _block(document.root, 0)
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    return "\n".join(lines) + "\n"


def _block(value: Value, indent: int) -> list[str]:
    """Return the lines of a list or mapping."""
    lines: list[str] = []
    margin = " " * indent
    for number, item in enumerate(value.items):
        before = item.before if number else _without_leading_blank(item.before)
        lines += _comment_lines(before, margin) + _item(item, indent)
    return lines + _comment_lines(value.after, margin)


def _without_leading_blank(lines: list[str]) -> list[str]:
    return lines[1:] if lines and not lines[0] else lines


def _comment_lines(lines: Sequence[str], margin: str) -> list[str]:
    return [margin + line if line else "" for line in lines]


def _item(item: Item, indent: int) -> list[str]:
    """Return the lines of one item: the first, with what follows the "-" or the key, and others."""
    margin, value = " " * indent, item.value
    head = margin + ("-" if item.key is None else f"{_inline(item.key, True)}:")
    if value.anchor and value.kind is not yaml.AliasEvent:
        head += f" &{value.anchor}"
    beside = _beside(item)
    if (inline := _on_one_line(value, len(head) + 1)) is not None:
        return [f"{head} {inline}".rstrip() + beside]
    if value.is_scalar:
        return _literal(value, head, indent, beside)
    if item.key is None and value.is_mapping and not value.anchor:
        first, *others = _block(value, indent + 2)
        return [f"{margin}- {first.lstrip(' ')}{beside}", *others]
    return [head + beside, *_block(value, indent + 2)]


def _beside(item: Item) -> str:
    text = item.beside.lstrip()
    return " " * max(2, len(item.beside) - len(text)) + text if text else ""


def _on_one_line(value: Value, column: int) -> str | None:
    """Return a value that fits on the line of its key, from `column`; else None."""
    if value.kind is yaml.AliasEvent:
        return f"*{value.text}"
    if value.is_scalar:
        return None if _is_literal(value) else _inline(value, False)
    if value.is_mapping:
        return None if value.items else "{}"
    if any(item.has_comments or item.value.is_collection for item in value.items) or value.after:
        return None
    if value.one_per_line and value.items:
        return None
    text = f"[{', '.join(_anchored(item.value) for item in value.items)}]"
    return text if column + len(text) <= WIDTH or not value.items else None


def _anchored(value: Value) -> str:
    if value.kind is yaml.AliasEvent:
        return f"*{value.text}"
    return (f"&{value.anchor} " if value.anchor else "") + _inline(value, True)


def _inline(value: Value, in_brackets: bool) -> str:
    """Return a scalar on one line, with quotes if it needs them."""
    text = value.text
    if value.tag != STRING:
        return text
    plain = value.plain and not (in_brackets and _NOT_IN_BRACKETS & set(text))
    is_string = resolved_tag(text) == STRING
    if is_string and "\n" not in text and (plain or _PLAIN.fullmatch(text)):
        return text
    if text.isprintable():
        return quoted(text)
    return json.dumps(text, ensure_ascii=False)


def _is_literal(value: Value) -> bool:
    """Return whether a text of several lines can be written as a block with `|`."""
    text = value.text
    return (
        value.tag == STRING
        and "\n" in text
        and not text.endswith("\n\n")
        and not text.startswith((" ", "\n"))
        and all(line.isprintable() and line == line.rstrip() for line in text.split("\n"))
    )


def _literal(value: Value, head: str, indent: int, beside: str) -> list[str]:
    margin = " " * (indent + 2)
    mark = "|" if value.text.endswith("\n") else "|-"
    lines = value.text.rstrip("\n").split("\n")
    return [f"{head} {mark}{beside}", *(margin + line if line else "" for line in lines)]
