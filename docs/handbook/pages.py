"""Which file of the checkout is which page of the site, and how links follow from that. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping

PAGES = ("*.md", "docs/**/*.md", "layout/*.md", "thin-images/*.md", "deploy/**/*.md")
"""The pages that are written by hand, as patterns relative to the top of the checkout."""

CONTENTS = "docs/README.md"
"""The list of all pages, from which the navigation of the site is made."""

COMMANDS = "reference/commands/"
"""The directory of the site with a page for each command."""

SCHEMAS = {
    "docs/schemas": "reference/json",
    "layout/schemas": "reference/files",
    "publisher/schemas": "reference/keys",
    "thin-images": "reference/files",
}
"""Directories with JSON Schemas, and the pages that describe them."""

_NAMES = {
    "README": "index",
    "CONTRIBUTING": "contributing",
    "CHANGELOG": "changelog",
    "docs/README": "contents",
    "layout/README": "layout",
    "layout/index": "layer-index",
    "docs/reference/README": "reference/index",
}
_LINK = re.compile(r"(?P<before>!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()(?P<target>[^)\s]+)\)")
_FILE_LABEL = re.compile(r"\[[\w./-]+\.md\]\($")
_FENCE = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)


def page_name(path: str) -> str:
    """Return the name of the page for the Markdown file `path`."""
    name = path.removesuffix(".md")
    if name in _NAMES:
        return _NAMES[name]
    name = name.removeprefix("docs/")
    if name.startswith("runtimes/"):
        return name.replace("README", "index")
    return name.removesuffix("/README")


def schema_anchor(path: str) -> str:
    """Return the label of the section about the JSON Schema `path`."""
    directory, _, name = path.removesuffix(".schema.json").rpartition("/")
    return f"{SCHEMAS[directory].rpartition('/')[2]}-{name}"


def file_page_name(path: str) -> str:
    """Return the name of the page that shows the file, or the directory, `path`."""
    return f"files/{path.rstrip('/').replace('.', '-')}"


def file_anchor(path: str) -> str:
    """Return the label of the file `path` on the page that shows its directory."""
    return f"file-{re.sub(r'[^a-z0-9]+', '-', path.lower())}"


def rewritten(text: str, page: str, source: str, names: Mapping[str, str]) -> str:
    """Return the Markdown `text` of `source` with its links as they are on `page` of the site.

    Links whose text is the name of a file get the heading to which they lead instead, except on the
    pages of commands: these are man pages as well, which show no addresses.

    Args:
        text: The page, with links that are relative to its file, or begin with "/" for the top.
        page: The name of the page on the site.
        source: The path of the page in the checkout.
        names: What each path in the checkout that links lead to is on the site, with its suffix.

    Raises:
        KeyError: A link leads to a file that is not on the site.
    """

    def link(found: re.Match[str]) -> str:
        target, hash_sign, fragment = found["target"].partition("#")
        if ":" in target or not target:
            return found[0]
        path = checkout_path(target, source)
        there = posixpath.relpath(names[path], posixpath.dirname(page) or ".")
        before = found["before"]
        if not page.startswith(COMMANDS) and path.endswith(".md"):
            before = _FILE_LABEL.sub("[](", before)
        return f"{before}{there}{hash_sign}{fragment})"

    return _outside_code(text, lambda piece: _LINK.sub(link, piece))


def links(text: str, source: str) -> set[str]:
    """Return the paths in the checkout that the page links to."""
    found: set[str] = set()

    def collect(piece: str) -> str:
        for each in _LINK.finditer(piece):
            target = each["target"].partition("#")[0]
            if target and ":" not in target:
                found.add(checkout_path(target, source))
        return piece

    _outside_code(text, collect)
    return found


def checkout_path(target: str, source: str) -> str:
    """Return the path, from the top of the checkout, of what a link in `source` leads to."""
    if target.startswith("/"):
        return target.strip("/")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    blocks = _FENCE.split(text)
    for number in range(0, len(blocks), 2):
        blocks[number] = change(blocks[number])
    return "".join(blocks)
