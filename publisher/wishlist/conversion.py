"""Convert lists of other forms to wish lists of version 2: behind `publisher import`. Pure.

The text form is that of OSG's docker_images.txt: `[registry/]name[:tag]` per line, comments with
"#", and tags that are globs if they contain "*". Version 1 is the recipe of DUCC. Comments are
kept; an entry that cannot be used becomes a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import yaml

from publisher.errors import InvalidReference, PublisherError, presentable
from publisher.lazy import dataclass
from publisher.oci.reference import parse_pattern
from publisher.oci.tag_patterns import InvalidPattern, check_pattern
from publisher.problems import Problem, Severity
from publisher.wishlist.document import (
    Document,
    Item,
    Value,
    pair,
    read_document,
    scalar,
    texts,
    version_2,
)
from publisher.wishlist.formatting import format_document, normalise
from publisher.wishlist.model import WishList, WishListError
from publisher.wishlist.parse import parse_wish_list

_NOT_CONVERTED = "# not converted: "


@dataclass(frozen=True, slots=True)
class Converted:
    """A list of version 2; `problems` are the entries that could not be converted."""

    text: str
    problems: tuple[Problem, ...] = ()


def convert_list(data: bytes, name: str) -> Converted:
    """Return a list of version 2 with the same wishes; the form of `data` is recognized.

    Raises:
        WishListError: No image can be used, or an error of version 1 concerns the whole list.
        PublisherError: It is a list of version 2 already.
    """
    if re.search(rb"^(?:version|input|images)[ \t]*:(?=\s|\Z)", data, re.MULTILINE):
        return _convert_yaml(data, name)
    return convert_text(data.decode("utf-8-sig", "replace"), name)


# --- the text form --------------------------------------------------------------------------


def convert_text(text: str, name: str) -> Converted:
    """Return a list of version 2 with the images of a text list."""
    problems: list[Problem] = []
    items: list[Item] = []
    pending: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        entry, comment = _split_comment(line)
        if not entry:
            pending.append(comment)
            continue
        try:
            image = _text_image(entry)
        except (InvalidReference, InvalidPattern) as error:
            column = len(line) - len(line.lstrip()) + 1
            problems.append(_problem(name, number, column, error))
            pending.append(f"{_NOT_CONVERTED}{' '.join(line.split())}")
            continue
        items.append(Item(scalar(image), None, pending, f"  {comment}" if comment else ""))
        pending = []
    if not items:
        raise _without_images(name, problems)
    images = Value(yaml.SequenceStartEvent, items=items, one_per_line=True)
    images.after = _without_blanks(pending)
    root = Value(yaml.MappingStartEvent, items=[version_2(), pair("images", images)])
    root.items[0].before, items[0].before = _header(items[0].before)
    for item in items:
        item.before = _without_blanks(item.before, keep_first=True)
    return Converted(format_document(Document(root)), tuple(problems))


def _split_comment(line: str) -> tuple[str, str]:
    """Return the entry and the comment of a line; a '#' after white space begins a comment."""
    found = re.search(r"(?:^|\s)#.*", line)
    comment = found[0].strip() if found else ""
    return (line[: found.start()] if found else line).strip(), comment


def _text_image(entry: str) -> str:
    """Return an image of a text list as wish lists write it.

    As in OSG's program, the first of three and more parts is a registry also without a dot, and an
    entry without a registry is one of Docker Hub. There, "?" and "[" are patterns only beside "*".
    """
    first, _, rest = entry.partition("/")
    if "/" in rest and not (set(".:") & set(first) or first == "localhost"):
        entry = f"https://{entry}"
    reference, pattern = parse_pattern(entry)
    if pattern is None:
        return str(reference)
    return f"{reference}:{check_pattern(pattern)}"


def _header(before: list[str]) -> tuple[list[str], list[str]]:
    """Divide the lines above the first image: those up to the last blank one head the file."""
    if "" not in before:
        return [], before
    last = len(before) - before[::-1].index("")
    return _without_blanks(before[:last]), before[last:]


def _without_blanks(lines: Sequence[str], keep_first: bool = False) -> list[str]:
    """Return the lines without blank ones that are repeated, or at the end."""
    kept = [line for number, line in enumerate(lines) if line or lines[number - 1 : number] != [""]]
    while kept and not kept[-1] and not (keep_first and len(kept) == 1):
        kept.pop()
    return kept if keep_first or not kept or kept[0] else kept[1:]


# --- version 1 ------------------------------------------------------------------------------


def _convert_yaml(data: bytes, name: str) -> Converted:
    wish_list = parse_wish_list(data, name)
    if wish_list.version == 2:
        raise PublisherError(
            f"cannot convert {name}",
            why="it is a wish list of version 2 already",
            hint=f"publisher fmt {name}",
        )
    text = data.decode("utf-8-sig")
    document = read_document(text)
    root = document.root
    problems = wish_list.unusable
    bad = {(problem.line, problem.column) for problem in problems}
    images = root.item("input")
    assert images is not None  # the list has been parsed
    images.value.items, images.value.after = _usable(images.value, text, bad)
    if not images.value.items:
        raise _without_images(name, problems)
    header, root.items[0].before = root.items[0].before, []
    root.items = list(_version2_items(root, wish_list))
    root.items[0].before = header + root.items[0].before
    normalise(document)
    converted = format_document(document)
    if _wishes(converted, name) != _wishes(text, name):
        raise PublisherError(
            f"cannot convert {name}",
            why="the result would request other images",
            hint="report this list as a defect of the publisher",
        )
    return Converted(converted, problems)


def _version2_items(root: Value, wish_list: WishList) -> Iterator[Item]:
    """Yield the items of version 2; comments of keys that it lacks precede the next key."""
    pending: list[str] = []
    names = {"version": "version", "cvmfs_repo": "repository", "output_format": "thin"}
    names["input"] = "images"
    for item in root.items:
        key = item.key.text if item.key else ""
        if key not in names:
            pending += [*item.before, *([item.beside.strip()] if item.beside else [])]
            continue
        item.before, pending = [*pending, *item.before], []
        item.key = scalar(names[key])
        if key == "version":
            item.value.text = "2"
        if key == "cvmfs_repo":
            item.value = scalar(wish_list.repository or "")
        yield item
        if key == "output_format":
            outputs = pair("outputs", texts(("flat", "layers", "thin")))
            yield pair("defaults", Value(yaml.MappingStartEvent, items=[outputs]))
    root.after = pending + root.after


def _without_images(name: str, problems: Sequence[Problem]) -> WishListError:
    return WishListError(
        f"cannot convert {name}",
        why="" if problems else "it names no image",
        problems=problems,
        hint="name a list with [REGISTRY/]NAME[:TAG] on each line, or a wish list of version 1",
    )


def _usable(images: Value, text: str, bad: set[tuple[int, int]]) -> tuple[list[Item], list[str]]:
    """Return the items without an error, and the comments behind them."""
    items: list[Item] = []
    pending: list[str] = []
    for item in images.items:
        if item.value.place in bad:
            source = " ".join(text[item.value.start : item.value.end].split())
            beside = [item.beside.strip()] if item.beside else []
            pending += [*item.before, f"{_NOT_CONVERTED}{source}", *beside]
            continue
        item.before = pending + item.before
        pending = []
        items.append(item)
    return items, pending + images.after


def _wishes(text: str, name: str) -> list[object]:
    return [replace(w, line=0, column=0) for w in parse_wish_list(text, name).wishes]


def _problem(name: str, line: int, column: int, error: PublisherError) -> Problem:
    message = f"{error.what}: {error.why}" if error.why else error.what
    return Problem(Severity.ERROR, name, line, column, message, error.hint, presentable(error.what))
