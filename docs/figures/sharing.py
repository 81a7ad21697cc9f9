"""The figure in docs/alternatives.md: what two images with a common base take in each form.

python docs/figures/sharing.py > docs/figures/sharing.svg
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

_STYLE = """\
    .panel { fill: #f6f8fa; stroke: #d0d7de }
    text { font: 13px system-ui, sans-serif; fill: #1f2328; text-anchor: middle }
    .title { font-weight: bold; text-anchor: start }
    .base { fill: #9ec5f8; stroke: #0b5394 }
    .own { fill: #f7cf9b; stroke: #8a5a00 }
    .link { fill: none; stroke: #57606a; stroke-dasharray: 4 3 }
    @media (prefers-color-scheme: dark) {
      .panel { fill: #161b22; stroke: #30363d }
      text { fill: #e6edf3 }
      .base { fill: #1f4b7d; stroke: #8ab8ff }
      .own { fill: #6b4a12; stroke: #e8b566 }
      .link { stroke: #8b949e }
    }"""


@dataclass(frozen=True, slots=True)
class _Box:
    x: int
    y: int
    kind: str
    label: str


_FORMS = (
    (
        "One file for each image (squashfs, SIF)",
        (
            _Box(20, 45, "base", "base"),
            _Box(20, 85, "own", "image A"),
            _Box(170, 45, "base", "base, again"),
            _Box(170, 85, "own", "image B"),
        ),
    ),
    (
        "Unpacked layers, flat images of links",
        (
            _Box(380, 45, "base", "base"),
            _Box(530, 45, "own", "image A"),
            _Box(530, 85, "own", "image B"),
            _Box(380, 135, "link", "flat A: links"),
            _Box(530, 135, "link", "flat B: links"),
        ),
    ),
)


def figure() -> str:
    """Return the SVG."""
    shapes = []
    for number, (title, boxes) in enumerate(_FORMS):
        shapes.append(f'  <text class="title" x="{20 + 360 * number}" y="30">{title}</text>')
        for box in boxes:
            shapes += [
                f'  <rect class="{box.kind}" x="{box.x}" y="{box.y}" width="140" height="32"/>',
                f'  <text x="{box.x + 70}" y="{box.y + 21}">{box.label}</text>',
            ]
    return "\n".join(
        (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 710 200" width="710" height="200"'
            ' role="img">',
            "  <title>Two images with a common base: as single files, and as published</title>",
            f"  <style>\n{_STYLE}\n  </style>",
            '  <rect class="panel" x="0.5" y="0.5" width="709" height="199" rx="6"/>',
            *shapes,
            "</svg>\n",
        )
    )


if __name__ == "__main__":
    sys.stdout.write(figure())
