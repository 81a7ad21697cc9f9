"""Divide a rectangle into smaller ones whose areas are in proportion to given sizes. Pure.

Source: Bruls, Huizing, van Wijk, "Squarified Treemaps" (2000): rows of rectangles are laid along
the shorter side of what is left. A row gets further ones as long as all become more like squares.
"""

from __future__ import annotations

from collections.abc import Sequence

from publisher.lazy import dataclass


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A rectangle, by its upper left corner, width and height."""

    x: float
    y: float
    width: float
    height: float

    def inset(self, top: float, other: float) -> Rectangle:
        """Return the rectangle without margins; its sides are at least 0."""
        width = max(0.0, self.width - 2 * other)
        height = max(0.0, self.height - top - other)
        return Rectangle(self.x + other, self.y + top, width, height)


def squarify(sizes: Sequence[int], area: Rectangle) -> list[Rectangle]:
    """Return a rectangle for each of the sizes, which together fill `area`.

    Args:
        sizes: Positive, the largest first.
        area: What is divided. If it is empty, so are all rectangles.
    """
    total = sum(sizes)
    scale = area.width * area.height / total if total else 0
    placed: list[Rectangle] = []
    left, start = area, 0
    while start < len(sizes):
        side = min(left.width, left.height)
        end = start + 1
        while end < len(sizes) and _worst(sizes[start : end + 1], side, scale) <= _worst(
            sizes[start:end], side, scale
        ):
            end += 1
        row, left = _lay(sizes[start:end], left, scale)
        placed += row
        start = end
    return placed


def _worst(row: Sequence[int], side: float, scale: float) -> float:
    """Return the largest ratio of the sides of the rectangles in a row along `side`."""
    area = sum(row) * scale
    if not area or not side:
        return float("inf")
    return max(
        side * side * row[0] * scale / (area * area), area * area / (side * side * row[-1] * scale)
    )


def _lay(row: Sequence[int], area: Rectangle, scale: float) -> tuple[list[Rectangle], Rectangle]:
    """Return the rectangles of a row, and the area that is left."""
    is_wide = area.width >= area.height
    side = area.height if is_wide else area.width
    depth = sum(row) * scale / side if side else 0.0
    placed, at = [], 0.0
    for size in row:
        length = size * scale / depth if depth else 0.0
        if is_wide:
            placed.append(Rectangle(area.x, area.y + at, depth, length))
        else:
            placed.append(Rectangle(area.x + at, area.y, length, depth))
        at += length
    if is_wide:
        return placed, Rectangle(area.x + depth, area.y, max(0.0, area.width - depth), area.height)
    return placed, Rectangle(area.x, area.y + depth, area.width, max(0.0, area.height - depth))
