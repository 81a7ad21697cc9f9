"""Texts of the program as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_CHECKOUT = Path(__file__).parents[2]
_MARKUP = re.compile(r"([\\*_<>\[\]#|])")
_PAGE = re.compile(r"\b((?:docs|layout|thin-images|deploy)/[\w/-]+\.md)\b")


def escaped(text: str) -> str:
    """Return `text` as Markdown: what is between backticks stays code, and pages become links.

    Links are relative to the top of the checkout, as those of pages in it would be.
    """
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick of its own
        return _MARKUP.sub(r"\\\1", text).replace("`", "\\`")
    for number in range(0, len(parts), 2):
        pieces = _PAGE.split(parts[number])
        pieces[::2] = [_MARKUP.sub(r"\\\1", piece) for piece in pieces[::2]]
        pieces[1::2] = [_link(page) for page in pieces[1::2]]
        parts[number] = "".join(pieces)
    return "`".join(parts)


def cell(text: str) -> str:
    """Return Markdown for a cell of a table: in one line, without the character between cells."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def code(text: str) -> str:
    """Return `text` as code, whatever characters it has."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table; the cells are Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell(each) for each in line)} |" for line in lines) + "\n"


def _link(page: str) -> str:
    return f"[{page}](/{page})" if (_CHECKOUT / page).exists() else escaped(f"`{page}`")


def without_empty_addresses(page: str) -> str:
    """Return a man page without the addresses that Sphinx shows for links to pages of the site."""
    page = re.sub(r" (?:\\%)?<>", "", page)
    if "<>" in page:
        raise AssertionError("this release of Sphinx writes the addresses of links in another form")
    return page
