"""The directory that Sphinx reads: the pages of the checkout, and those that are generated.

A page links to files of the checkout, as it has to where a forge shows it. On the site these links
lead to the pages of other files, or to pages that show the files themselves.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docs.handbook.commands import command_pages
from docs.handbook.pages import (
    CONTENTS,
    PAGES,
    SCHEMAS,
    checkout_path,
    file_anchor,
    file_page_name,
    links,
    page_name,
    rewritten,
    schema_anchor,
)
from docs.handbook.schemas import schema_section
from docs.handbook.tables import exit_codes_page, metrics_page, variables_page

CHECKOUT = Path(__file__).parents[2]
_LANGUAGES = {
    ".json": "json",
    ".md": "markdown",
    ".py": "python",
    ".sh": "bash",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
}
_IMAGES = (".svg", ".png")
_SCHEMA_PAGES = {
    "reference/keys": "Keys of YAML files",
    "reference/json": "JSON output",
    "reference/files": "Files of the tree",
}


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the site: its name, the path in the checkout that links start from, its text."""

    name: str
    source: str
    text: str


def stage(target: Path) -> None:
    """Fill the empty or missing directory `target` with the source of the site."""
    pages = [*written_pages(), *generated_pages()]
    (target / "raw").mkdir(parents=True)
    names = {page.source: f"{page.name}.md" for page in pages} | _stage_schemas(target)
    for directory in {path.rpartition("/")[0] for path in names if path.endswith("/README.md")}:
        names[directory] = names[f"{directory}/README.md"]
    linked = {path for page in pages for path in links(page.text, page.source)} - names.keys()
    shown, files = _file_pages({path for path in linked if (CHECKOUT / path).exists()})
    names |= files | _stage_images(target, linked)
    for page in pages:
        text = rewritten(page.text, page.name, page.source, names)
        _write(target, page.name, text + _NAVIGATION.get(page.name, str)())
    for page in shown:
        _write(target, page.name, f"---\norphan: true\n---\n\n{page.text}")


def _stage_schemas(target: Path) -> dict[str, str]:
    """Copy the schemas for programs, and return where on the site they are described."""
    names = {}
    for source, path in schemas():
        directory = source.rpartition("/")[0]
        shutil.copyfile(path, target / "raw" / path.name)
        names[f"raw/{path.name}"] = f"raw/{path.name}"
        names[source] = f"{SCHEMAS[directory]}.md#{schema_anchor(source)}"
        names[directory] = f"{SCHEMAS[directory]}.md"
    return names


def _stage_images(target: Path, linked: set[str]) -> dict[str, str]:
    names = {path: f"images/{Path(path).name}" for path in linked if path.endswith(_IMAGES)}
    (target / "images").mkdir()
    for path, name in names.items():
        shutil.copyfile(CHECKOUT / path, target / name)
    return names


def _file_pages(linked: set[str]) -> tuple[list[Page], dict[str, str]]:
    """Return pages that show the linked files, and where each of these files is shown.

    A file in a directory that is also linked is shown on the page of the directory only.
    """
    directories = sorted(path for path in linked if (CHECKOUT / path).is_dir())
    shown, names = [], {}
    for path in sorted(linked):
        around = next((each for each in directories if path.startswith(f"{each}/")), None)
        if path.endswith(_IMAGES):
            continue
        if around:
            first = _files(CHECKOUT / path)[0]
            anchor = file_anchor(str(first.relative_to(CHECKOUT)))
            names[path] = f"{file_page_name(around)}.md#{anchor}"
        else:
            shown.append(Page(file_page_name(path), path, _file_page(path)))
            names[path] = f"{shown[-1].name}.md"
    return shown, names


def written_pages() -> Iterator[Page]:
    """Yield the pages that are written by hand."""
    for path in sorted({path for pattern in PAGES for path in CHECKOUT.glob(pattern)}):
        source = str(path.relative_to(CHECKOUT))
        yield Page(page_name(source), source, path.read_text())


def generated_pages() -> Iterator[Page]:
    """Yield the pages of the reference that are made from the program and its schemas."""
    commands = command_pages()
    for page in commands:
        name = f"reference/commands/{page.name}"
        yield Page(name, f"{name}.md", page.text)
    names = "\n".join(f"{page.name}" for page in commands if page.name != "publisher")
    yield Page(
        "reference/commands/index",
        "reference/commands/index.md",
        "# Commands\n\n```{toctree}\n:maxdepth: 1\n\npublisher\n" + names + "\n```\n",
    )
    for place, heading in _SCHEMA_PAGES.items():
        sections = [
            f"{schema_section(path.read_text(), schema_anchor(source))}\n"
            f"For programs: [{path.name}](/raw/{path.name}), a JSON Schema.\n"
            for source, path in schemas()
            if SCHEMAS[source.rpartition("/")[0]] == place
        ]
        yield Page(place, f"{place}.md", "\n\n".join([f"# {heading}", *sections]))
    for name, text in (
        ("metrics", metrics_page()),
        ("exit-codes", exit_codes_page()),
        ("variables", variables_page()),
    ):
        yield Page(f"reference/{name}", f"reference/{name}.md", text)


def schemas() -> Iterator[tuple[str, Path]]:
    """Yield the JSON Schemas, by their paths in the checkout."""
    for directory in SCHEMAS:
        for path in sorted((CHECKOUT / directory).glob("*.schema.json")):
            yield str(path.relative_to(CHECKOUT)), path


def _file_page(path: str) -> str:
    """Return a page that shows the file, or all files of the directory, `path`."""
    place = CHECKOUT / path
    if place.is_file():
        return f"# {place.name}\n\n{_block(place)}"
    parts = []
    for each in _files(place):
        anchor = file_anchor(str(each.relative_to(CHECKOUT)))
        parts.append(f"({anchor})=\n## {each.relative_to(place)}\n\n{_block(each)}")
    return "\n\n".join([f"# {path.rstrip('/')}", *parts])


def _files(place: Path) -> list[Path]:
    """Return `place` if it is a file, else the files in it."""
    found = [place] if place.is_file() else sorted(place.rglob("*"))
    return [each for each in found if each.is_file() and "__pycache__" not in each.parts]


def _block(path: Path) -> str:
    text = path.read_text()
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{_LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"


def _navigation() -> str:
    """Return the navigation of the site: each heading of the list of pages, with its links."""
    parts = []
    sections = re.split(r"^## ", (CHECKOUT / CONTENTS).read_text(), flags=re.MULTILINE)[1:]
    for section in sections:
        caption, _, body = section.partition("\n")
        entries = [
            f"{label} <{page_name(checkout_path(target, CONTENTS))}>"
            for label, target in re.findall(r"^- \[([^\]]+)\]\(([^)#]+)\)", body, re.MULTILINE)
        ]
        parts.append(
            f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(entries) + "\n```"
        )
    return (
        "\n\n"
        + "\n\n".join(parts)
        + "\n\n```{toctree}\n:hidden:\n:caption: Index\n\n"
        + f"All pages <{page_name(CONTENTS)}>\n```\n"
    )


_REFERENCE = (
    *("commands/index", "keys", "json", "files"),
    *("metrics", "exit-codes", "variables"),
)


def _reference() -> str:
    """Return the navigation of the generated reference."""
    return "\n```{toctree}\n:hidden:\n\n" + "\n".join(_REFERENCE) + "\n```\n"


_NAVIGATION = {"index": _navigation, "reference/index": _reference}
"""What pages get at their ends: only the site has a navigation."""


def _write(target: Path, name: str, text: str) -> None:
    path = target / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
