"""Pages become HTML: templates, and how texts, sizes and times are shown.

Every text from outside passes `printable`, and is escaped for HTML by the templates. A page needs
no script, no inline style and nothing from another server: its policy forbids all of them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jinja2
from markupsafe import Markup, escape

from publisher.errors import printable
from publisher.site import addresses
from publisher.site.pages import Node
from publisher.sizes import human_size, plural

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

NAVIGATION = (
    ("Images", addresses.INDEX),
    ("Wishes", addresses.WISHES),
    ("Removals", addresses.REMOVALS),
    ("Space", addresses.SPACE),
)
"""The pages that every page links: label and path."""

_LONGEST = 4096
"""The most characters of one text that a page shows."""

_KINDS = {"c": "character device", "b": "block device", "p": "named pipe"}
_BRIEF = 160
_DIGEST_SHOWN = 12


def static_files() -> dict[str, bytes]:
    """Return the files that all pages use, by name."""
    return {file.name: file.read_bytes() for file in _files("static")}


@functools.cache
def fingerprint() -> str:
    """Return a digest of everything that pages are made by: if it changes, all are written anew."""
    digest = hashlib.sha256()
    package = sorted(_package().iterdir(), key=lambda each: each.name)
    modules = [each for each in package if each.name.endswith(".py")]
    modules.append(resources.files("publisher") / "sizes.py")
    for file in (*_files("static"), *_files("templates"), *modules):
        data = file.read_bytes()
        digest.update(f"{file.name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


class Renderer:
    """Renders pages.

    Args:
        site: The title of all of them.
        navigation: The pages that every page links: label and path.
        home: The path that the title leads to.
        templates: A directory with further templates.
        static: The content of further files that pages use, by name.
        policy: What pages may do beside loading their files, in the form of a
            Content-Security-Policy.
    """

    def __init__(
        self,
        site: str,
        *,
        navigation: Iterable[tuple[str, str]] = NAVIGATION,
        home: str = addresses.INDEX,
        templates: Traversable | None = None,
        static: Mapping[str, bytes] | None = None,
        policy: str = "form-action 'none'",
    ) -> None:
        directories = [_package() / "templates", *([templates] if templates is not None else [])]
        self._environment = _environment(directories)
        versions = {
            name: hashlib.sha256(data).hexdigest()[:8]
            for name, data in {**static_files(), **(static or {})}.items()
        }
        self._environment.globals.update(
            site=site,
            navigation=tuple(navigation),
            home=home,
            policy=Markup(policy),
            static=lambda name: f"{addresses.static_file(name)}?{versions[name]}",
        )

    def render(self, template: str, path: str, **values: object) -> bytes:
        """Return the HTML of a page.

        Args:
            template: The name of a template, without its suffix.
            path: The path of the page, which links in it are relative to.
            values: The names that the template uses.
        """
        text = self._environment.get_template(f"{template}.html").render(
            root="../" * path.count("/"), here=path, **values
        )
        return text.encode("utf-8")


def listing(nodes: Iterable[Node], root: str) -> Markup:
    """Return the entries of a directory as nested lists.

    A template would take several times as long.

    Args:
        nodes: The entries.
        root: What leads from the page to the site, before the paths of other pages.
    """
    return Markup("".join(_listed(nodes, root)))


def _listed(nodes: Iterable[Node], root: str) -> Iterator[str]:
    yield "<ul>"
    for node in nodes:
        name, size = escape(_finalize(node.name)), human_size(node.size)
        if node.kind == "d":
            shown = f"<span>{size}, {plural(node.count, 'file')}</span>"
            if node.page:
                yield f'<li class="d"><a href="{root}{node.page}">{name}/</a>{shown}</li>'
                continue
            yield f'<li class="d"><details><summary>{name}/{shown}</summary>'
            yield from _listed(node.children, root)
            yield "</details></li>"
        elif node.kind == "f":
            yield f"<li>{name}<span>{size}</span></li>"
        elif node.target:
            yield f"<li>{name} → {escape(_finalize(node.target))}</li>"
        else:
            yield f"<li>{name}<span>{_KINDS.get(node.kind, node.kind)}</span></li>"
    yield "</ul>"


def is_web_address(text: str) -> bool:
    """Return whether a text from an image may become a link: an address of http or https."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable()
    except ValueError:
        return False


def _environment(directories: Sequence[Traversable]) -> jinja2.Environment:
    def load(name: str) -> str | None:
        files = (directory / name for directory in directories)
        return next((each.read_text(encoding="utf-8") for each in files if each.is_file()), None)

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(load),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": _size,
        "moment": _moment,
        "brief": _brief,
        "lines": _lines,
        "listing": listing,
        "short": _short_digest,
        "number": lambda count: f"{count:,}",
        "share": _share,
        "plural": plural,
    }
    environment.tests["web_address"] = is_web_address
    return environment


def _finalize(value: Any) -> Any:
    """Return what an expression of a template shows: texts are made printable and bounded."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        text = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}… ({len(value)} characters)"
        return printable(text)
    return value


def _lines(texts: Iterable[str]) -> Markup:
    """Return texts from outside as lines; their own line breaks are escaped as in other texts."""
    return Markup("&#10;").join(_finalize(text) for text in texts)


def _size(count: float | None) -> str:
    return "unknown" if count is None else human_size(count)


def _moment(time: str) -> str:
    """Return a time for readers: "2026-11-20 08:15"; all times of pages are UTC."""
    return time[:16].replace("T", " ")


def _brief(text: str, length: int = _BRIEF) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _short_digest(digest: str) -> str:
    return digest.partition(":")[2][:_DIGEST_SHOWN] or digest


def _share(part: float | None, whole: float, width: float = 100) -> str:
    """Return the length of a bar of which `width` is the whole."""
    return f"{width * (part or 0) / whole:.1f}".removesuffix(".0") if whole else "0"


def _package() -> Traversable:
    return resources.files("publisher.site")


def _files(directory: str) -> Iterator[Traversable]:
    yield from sorted((_package() / directory).iterdir(), key=lambda each: each.name)
