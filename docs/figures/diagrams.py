"""The figures in docs/transactions.md, docs/layers.md and docs/security.md.

python docs/figures/diagrams.py writes them beside this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

_STYLE = """\
    .panel { fill: #f6f8fa; stroke: #d0d7de }
    text { font: 12px system-ui, sans-serif; fill: #1f2328; text-anchor: middle }
    .title { font-weight: bold; text-anchor: start }
    .base { fill: #9ec5f8; stroke: #0b5394 }
    .own { fill: #f7cf9b; stroke: #8a5a00 }
    .link { fill: none; stroke: #57606a; stroke-dasharray: 4 3 }
    .arrow { fill: none; stroke: #57606a; stroke-width: 1.5 }
    @media (prefers-color-scheme: dark) {
      .panel { fill: #161b22; stroke: #30363d }
      text { fill: #e6edf3 }
      .base { fill: #1f4b7d; stroke: #8ab8ff }
      .own { fill: #6b4a12; stroke: #e8b566 }
      .link { stroke: #8b949e }
      .arrow { stroke: #8b949e }
    }"""


def transaction() -> str:
    """Return the steps of a commit, and what happens if the publisher ends in them."""
    title = "A commit: before the journal is renamed nothing is published, after it everything is"
    steps = ("unpack layers", "link the image", "lock, check", "journal", "renames", "history")
    shapes = []
    for number, step in enumerate(steps):
        x = 20 + 113 * number
        shapes += _box("base" if number < 3 else "own", x, 50, 100, step)
        if number < len(steps) - 1:
            shapes.append(_arrow(x + 100, 66, x + 113, 66))
    point = 20 + 113 * 3 + 50
    shapes += [
        f'  <path class="arrow" d="M{point} 88 V150"/>',
        _text(point, 166, "commit point"),
        *_box("link", 20, 104, point - 30, "killed here: the session is discarded"),
        *_box("link", point + 10, 104, 680 - point, "killed here: completed by the next run"),
    ]  # fmt: skip
    return _document(title, 180, shapes)


def layers() -> str:
    """Return how two layers become trees, and a flat image of links to them."""
    columns = (
        ("archives", (("base", "etc/motd"), ("base", "bin/tool"), ("own", ".wh.motd, bin/tool"))),
        ("trees of layers", (("base", "etc/motd"), ("base", "bin/tool"), ("own", "bin/tool"))),
        ("flat image", (("link", "etc/ (motd is removed)"), ("link", "bin/tool of layer 2"))),
    )
    shapes = []
    for number, (name, boxes) in enumerate(columns):
        x = 20 + 240 * number
        shapes.append(f'  <text class="title" x="{x}" y="52">{name}</text>')
        for place, (kind, text) in enumerate(boxes):
            shapes += _box(kind, x, 64 + 40 * place, 190, text)
        if number < 2:
            shapes.append(_arrow(x + 190, 120, x + 240, 120))
    shapes += [
        _text(355, 204, "blue: layer 1, orange: layer 2; an index lists the entries of each"),
        _text(355, 222, "the indexes decide what the flat image has; dashed: links, no contents"),
    ]  # fmt: skip
    return _document("From the archives of two layers to a flat image", 236, shapes)


def confinement() -> str:
    """Return which process reads bytes of images, and what it can reach."""
    shapes = [
        *_box("base", 20, 60, 110, "registry"),
        _arrow(130, 76, 250, 76),
        _text(190, 68, "HTTPS, digests"),
        *_box("own", 250, 60, 130, "publisher"),
        _text(315, 112, "credentials, lock, tree"),
        _arrow(380, 70, 560, 70),
        _text(470, 62, "bytes of a layer"),
        _arrow(560, 86, 380, 86),
        _text(470, 104, "index, to be checked"),
        *_box("link", 560, 60, 130, "worker"),
        _text(615, 112, "no network, one directory,"),
        _text(615, 128, "few system calls"),
    ]
    return _document("A process without rights reads what images contain", 146, shapes)


FIGURES: dict[str, Callable[[], str]] = {
    "transaction.svg": transaction,
    "layers.svg": layers,
    "confinement.svg": confinement,
}


def _box(kind: str, x: int, y: int, width: int, text: str) -> list[str]:
    return [
        f'  <rect class="{kind}" x="{x}" y="{y}" width="{width}" height="32"/>',
        _text(x + width // 2, y + 21, text),
    ]


def _text(x: int, y: int, text: str) -> str:
    return f'  <text x="{x}" y="{y}">{text}</text>'


def _arrow(x1: int, y1: int, x2: int, y2: int) -> str:
    back = 6 if x2 > x1 else -6
    head = f"M{x2 - back} {y2 - 4} L{x2} {y2} L{x2 - back} {y2 + 4}"
    return f'  <path class="arrow" d="M{x1} {y1} L{x2} {y2} {head}"/>'


def _document(title: str, height: int, shapes: Sequence[str]) -> str:
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 710 {height}" width="710"'
            f' height="{height}" role="img">',
            f"  <title>{title}</title>",
            f"  <style>\n{_STYLE}\n  </style>",
            f'  <rect class="panel" x="0.5" y="0.5" width="709" height="{height - 1}" rx="6"/>',
            f'  <text class="title" x="20" y="28">{title}</text>',
            *shapes,
            "</svg>\n",
        )
    )


if __name__ == "__main__":
    for name, figure in FIGURES.items():
        Path(__file__).with_name(name).write_text(figure())
