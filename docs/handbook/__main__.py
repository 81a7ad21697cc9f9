"""`make docs`, `make man`: the site, the man pages, in build/docs; `make dist`: build/share."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from docs.handbook.commands import command_pages
from docs.handbook.links import broken_links
from docs.handbook.share import write_share
from docs.handbook.staging import CHECKOUT, stage
from docs.handbook.text import without_empty_addresses

BUILD = CHECKOUT / "build/docs"
SHARE = CHECKOUT / "build/share"


def main(words: list[str]) -> int:
    """Build the "html" or "man" pages; a warning of Sphinx, or a broken link, is an error.

    With "share", what a wheel has beside the program is made from the man pages.
    """
    (builder,) = words
    if builder != "share":
        return build(builder, BUILD)
    code = build("man", BUILD)
    if code == 0:
        write_share(BUILD / "man", SHARE)
    return code


def build(builder: str, target: Path) -> int:
    """Build the pages into `target`/`builder`; return the exit code."""
    from sphinx.cmd.build import build_main

    source = target / "source"
    for path in (source, target / builder):
        shutil.rmtree(path, ignore_errors=True)
    stage(source)
    options = ["-q", "-W", "--keep-going", "-b", builder, "-c", str(CHECKOUT / "docs")]
    code: int = build_main(
        [*options, "-d", str(target / "doctrees"), str(source), str(target / builder)]
    )
    if code == 0 and builder == "html":
        for link in (broken := broken_links(target / "html")):
            print(link, file=sys.stderr)
        code = 1 if broken else 0
    if builder == "man":
        for path in (target / "man").iterdir():
            path.write_text(without_empty_addresses(path.read_text()))
    if code == 0:
        print(f"{len(command_pages())} commands; see {target / builder}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
