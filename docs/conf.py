"""The configuration of Sphinx for the documentation site; `make docs` runs it."""

from __future__ import annotations

from typing import Any

from docs.handbook.commands import command_pages
from publisher import __version__

project = "publisher"
author = "the authors of publisher"
project_copyright = "the authors of publisher, Apache-2.0"
version = release = __version__
extensions = ["myst_parser"]
root_doc = "index"
smartquotes = False  # what a page shows can be copied into a shell
nitpicky = True
highlight_language = "text"
suppress_warnings = ["misc.highlighting_failure"]  # of commands in several lines

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

man_pages: list[tuple[str, str, str, list[str], str]] = [
    (f"reference/commands/{page.name}", page.name, page.summary, [], "1")
    for page in command_pages()
]
man_make_section_directory = False

html_theme = "furo"
html_static_path = ["handbook/static"]
html_css_files = ["site.css"]
html_title = f"publisher {release}"
html_copy_source = False
html_show_sphinx = False
html_theme_options: dict[str, Any] = {
    "light_css_variables": {"color-brand-primary": "#0b5394", "color-brand-content": "#0b5394"},
    "dark_css_variables": {"color-brand-primary": "#8ab8ff", "color-brand-content": "#8ab8ff"},
}
