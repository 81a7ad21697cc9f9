"""The links of a built site: each leads to a page of the site, and to a place on it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.places.add(value)
            elif value and (name == "href" or (name == "src" and tag in ("img", "script"))):
                self.links.add(value)


def broken_links(site: Path) -> list[str]:
    """Return the links that lead nowhere, each with its page. External ones are not followed."""
    pages: dict[Path, _Page] = {}
    for path in sorted(site.rglob("*.html")):
        pages[path] = page = _Page()
        page.feed(path.read_text())
    broken = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = pages.get(target)
            missing = not target.exists() or (
                there is not None and parts.fragment and parts.fragment not in there.places
            )
            if missing:
                broken.append(f"{path.relative_to(site)} links to {link}")
    return broken
