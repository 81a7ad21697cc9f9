"""The picture in the README: what `make demo` prints, as an SVG in the colours of the reader.

make demo | .venv/bin/python -m docs.handbook.recording > docs/figures/demo.svg
"""

from __future__ import annotations

import re
import sys
from html import escape

_LINE = 19
_MARGIN = 16
_DEEPEST = {".layers/": 3, ".metadata/": 1}
"""The levels of the tree that are shown; elsewhere 2."""

_STYLE = """\
    .panel { fill: #f6f8fa; stroke: #d0d7de }
    text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
    text { fill: #1f2328; white-space: pre }
    .prompt { fill: #0b5394; font-weight: bold }
    @media (prefers-color-scheme: dark) {
      .panel { fill: #161b22; stroke: #30363d }
      text { fill: #e6edf3 }
      .prompt { fill: #8ab8ff }
    }"""


def recorded_lines(output: str) -> list[str]:
    """Return the lines of the demo that the picture shows: those that are the same in each run."""
    ingest = output.split("$ publisher ingest wishlist.yaml\n")[1]
    published = re.findall(r"^published: .*$", ingest, re.MULTILINE)[:2]
    tree = output.split("=== 3. The tree\n\n")[1].split("\n\n")[0].splitlines()
    deepest = 1
    shown = []
    for line in tree:
        depth = (len(line) - len(line.lstrip("│├└─ \u00a0"))) // 4
        if depth <= 1:
            deepest = _DEEPEST.get(line.lstrip("├└─ "), 2)
        if depth <= deepest:
            shown.append(line)
    return ["$ publisher ingest wishlist.yaml", *published, "", *shown]


def recording(output: str) -> str:
    """Return the SVG for the output of the demo."""
    lines = recorded_lines(output)
    height = 2 * _MARGIN + _LINE * len(lines)
    texts = [
        f'  <text x="{_MARGIN}" y="{_MARGIN + _LINE * number - 5}"'
        f"{' class=' + chr(34) + 'prompt' + chr(34) if line.startswith('$') else ''}>"
        f"{escape(line)}</text>"
        for number, line in enumerate(lines, 1)
        if line
    ]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" width="720"'
            f' height="{height}" role="img" xml:space="preserve">',
            "  <title>Two images are published, and the directory that results</title>",
            f"  <style>\n{_STYLE}\n  </style>",
            f'  <rect class="panel" x="0.5" y="0.5" width="719" height="{height - 1}" rx="6"/>',
            *texts,
            "</svg>\n",
        )
    )


if __name__ == "__main__":
    sys.stdout.write(recording(sys.stdin.read()))
