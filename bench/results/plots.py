"""Plots as SVG, which are legible on a light and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 360
_DIGIT = 7  # the width of one
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 58, 46

_STYLE = """\
    .panel { fill: #f6f8fa; stroke: #d0d7de }
    text { font: 12px system-ui, sans-serif; fill: #1f2328 }
    .title { font-weight: bold; font-size: 14px }
    .grid { stroke: #d0d7de; stroke-width: 1 }
    .line { fill: none; stroke-width: 2 }
    .s0 { stroke: #0b5394; fill: #0b5394 } .s1 { stroke: #b35900; fill: #b35900 }
    .s2 { stroke: #2e7d32; fill: #2e7d32 } .s3 { stroke: #8e24aa; fill: #8e24aa }
    .s4 { stroke: #57606a; fill: #57606a } .line { fill: none }
    @media (prefers-color-scheme: dark) {
      .panel { fill: #161b22; stroke: #30363d }
      text { fill: #e6edf3 }
      .grid { stroke: #30363d }
      .s0 { stroke: #8ab8ff; fill: #8ab8ff } .s1 { stroke: #f0a860; fill: #f0a860 }
      .s2 { stroke: #7ccf80; fill: #7ccf80 } .s3 { stroke: #d69ae8; fill: #d69ae8 }
      .s4 { stroke: #9aa4ae; fill: #9aa4ae } .line { fill: none }
    }"""


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis: its text, and whether it is logarithmic."""

    label: str
    logarithmic: bool = False


def lines(title: str, x: Axis, y: Axis, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return a plot of lines; of a logarithmic axis, all values must be positive."""
    points = [point for each in series.values() for point in each]
    horizontal = _Scale([p[0] for p in points], x, _LEFT, _WIDTH - _RIGHT)
    vertical = _Scale([p[1] for p in points], y, _HEIGHT - _BOTTOM, _TOP)
    shapes = _frame(title, x, y, horizontal, vertical)
    for number, each in enumerate(series.values()):
        path = " ".join(f"{horizontal.at(a):.1f},{vertical.at(b):.1f}" for a, b in each)
        shapes.append(f'  <polyline class="line s{number}" points="{path}"/>')
        if len(each) <= 15:
            shapes += [
                f'  <circle class="s{number}" cx="{horizontal.at(a):.1f}"'
                f' cy="{vertical.at(b):.1f}" r="3"/>'
                for a, b in each
            ]
    return _document(title, _HEIGHT, [*shapes, *_legend(list(series))])


def bars(title: str, unit: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return horizontal bars: for each row one bar of each series, with its value beside it."""
    series = list(dict.fromkeys(name for row in rows.values() for name in row))
    step, left = 16 * len(series) + 12, 16 + _DIGIT * max(map(len, rows))
    height = _TOP + step * len(rows) + 12
    largest = max(value for row in rows.values() for value in row.values())
    shapes = [f'  <text class="title" x="14" y="24">{escape(title)}</text>']
    for number, (name, row) in enumerate(rows.items()):
        top = _TOP + step * number
        middle = top + (step - 12) / 2 + 4
        shapes.append(
            f'  <text text-anchor="end" x="{left - 8}" y="{middle}">{escape(name)}</text>'
        )
        for place, key in enumerate(series):
            if key not in row:
                continue
            width = max(row[key] / largest * (_WIDTH - left - 110), 1)
            y = top + 16 * place
            shapes += [
                f'  <rect class="s{place}" x="{left}" y="{y}" width="{width:.1f}" height="13"/>',
                f'  <text x="{left + width + 5:.1f}" y="{y + 11}">'
                f"{_number(row[key])} {unit}</text>",
            ]
    return _document(title, height, [*shapes, *(_legend(series) if len(series) > 1 else [])])


class _Scale:
    """Where a value is on an axis of the plot, and which values have a label."""

    def __init__(self, values: Sequence[float], axis: Axis, start: float, end: float) -> None:
        self._logarithmic = axis.logarithmic
        self._start, self._end = start, end
        if axis.logarithmic:
            low = math.floor(math.log10(min(values)))
            high = max(math.ceil(math.log10(max(values))), low + 1)
            self.ticks = [10.0**power for power in range(low, high + 1)]
            self._low, self._high = float(low), float(high)
        else:
            step = _step(max(values))
            self._low, self._high = 0.0, math.ceil(max(values) / step) * step
            self.ticks = [step * n for n in range(round(self._high / step) + 1)]

    def at(self, value: float) -> float:
        """Return the place of a value in pixels."""
        number = math.log10(value) if self._logarithmic else value
        share = (number - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)


def _step(largest: float) -> float:
    rough = largest / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= rough)


def _frame(title: str, x: Axis, y: Axis, horizontal: _Scale, vertical: _Scale) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    shapes = [
        f'  <text class="title" x="14" y="24">{escape(title)}</text>',
        f'  <text text-anchor="middle" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 10}">'
        f"{escape(x.label)}</text>",
        f'  <text text-anchor="end" x="{right}" y="24">{escape(y.label)}</text>',
    ]
    for value in vertical.ticks:
        at = f"{vertical.at(value):.1f}"
        shapes += [
            f'  <line class="grid" x1="{_LEFT}" y1="{at}" x2="{right}" y2="{at}"/>',
            f'  <text text-anchor="end" x="{_LEFT - 6}" y="{float(at) + 4:.1f}">'
            f"{_number(value)}</text>",
        ]
    for value in horizontal.ticks:
        number = _number(value)
        # In the middle of its tick, but within the picture.
        end = min(horizontal.at(value) + len(number) * _DIGIT / 2, _WIDTH - 6)
        shapes.append(f'  <text text-anchor="end" x="{end:.1f}" y="{bottom + 16}">{number}</text>')
    return shapes


def _legend(names: Sequence[str]) -> list[str]:
    shapes, x = [], 14
    for number, name in enumerate(names):
        shapes += [
            f'  <rect class="s{number}" x="{x}" y="36" width="12" height="10"/>',
            f'  <text x="{x + 17}" y="45">{escape(name)}</text>',
        ]
        x += 34 + round(6.6 * len(name))
    return shapes


def _document(title: str, height: float, shapes: Sequence[str]) -> str:
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}"'
            f' width="{_WIDTH}" height="{height:.0f}" role="img">',
            f"  <title>{escape(title)}</title>",
            f"  <style>\n{_STYLE}\n  </style>",
            f'  <rect class="panel" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1:.0f}"'
            ' rx="6"/>',
            *shapes,
            "</svg>\n",
        )
    )


def _number(value: float) -> str:
    """Return a number for a label: 3 digits at most, and thousands with a comma."""
    if value >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"
