"""Tables with small charts: on a terminal with lines and bars, elsewhere as plain columns."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from publisher.cli.rendering import echo
from publisher.errors import printable
from publisher.lazy import dataclass

_BAR_WIDTH = 20
_SMALL_BAR_WIDTH = 8
_FEW_COLUMNS = 5
_GAP = 2
_NARROWEST = 16
"""The fewest characters of a line in which the names of the first column are still legible."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table. The first column is aligned to the left, all others to the right.

    `bars` has two numbers for each row, of which a terminal shows a bar with a dark and a light
    part.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    bars: Sequence[tuple[float, float]] = ()


def print_tables(tables: Sequence[Table]) -> None:
    """Print the tables that have rows."""
    filled = [table for table in tables if table.rows]
    if sys.stdout.isatty():
        _print_rich(filled)
        return
    for number, table in enumerate(filled):
        if number:
            echo("")
        if table.title:
            echo(f"{table.title}:")
        _print_plain(table)


def _print_plain(table: Table) -> None:
    rows = [[printable(cell) for cell in row] for row in (table.columns, *table.rows)]
    print_aligned(rows, figures=True)


def print_aligned(rows: Sequence[Sequence[str]], *, figures: bool) -> None:
    """Print rows of printable texts; with `figures`, all but the first column end at one place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1])]
        cells += [cell.rjust(width) if figures else cell.ljust(width) for cell, width in others]
        echo("  ".join(cells).rstrip())


def _print_rich(tables: Sequence[Table]) -> None:
    from rich.console import Console  # rich is slow to import
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    blocks = "#-" if console.options.ascii_only else "█░"
    for table in tables:
        if table.title:
            console.print(Text(printable(table.title), style="italic"))
        names, others = _widths(table)
        if console.width < min(names, _NARROWEST) + others:
            _print_plain(table)  # the terminal wraps its lines, and no figure is cut
            console.print()
            continue
        has_bars = console.width >= names + others + _GAP + _bar_width(table)
        shown = RichTable(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
        for number, column in enumerate(table.columns):
            shown.add_column(
                column,
                justify="right" if number else "left",
                overflow="fold",
                no_wrap=bool(number),
            )
        if has_bars and table.bars:
            shown.add_column("", no_wrap=True)
        # Text is not markup, so that brackets in names are shown as they are.
        cells = [[Text(printable(cell)) for cell in row] for row in table.rows]
        bars = [[Text(bar, style="cyan")] for bar in _bars(table, blocks)] if has_bars else []
        for row, bar in zip(cells, bars or [[]] * len(cells), strict=True):
            shown.add_row(*row, *bar)
        console.print(shown)
        console.print()


def _widths(table: Table) -> tuple[int, int]:
    """Return the width of the first column, and that of all others with the gaps before them."""
    columns = zip(*(map(printable, row) for row in (table.columns, *table.rows)), strict=True)
    first, *others = (max(map(len, column)) for column in columns)
    return first, sum(width + _GAP for width in others)


def _bar_width(table: Table) -> int:
    return _BAR_WIDTH if len(table.columns) <= _FEW_COLUMNS else _SMALL_BAR_WIDTH


def _bars(table: Table, blocks: str) -> list[str]:
    """Return a bar for each row; the longest one has the whole width."""
    width = _bar_width(table)
    scale = max((sum(bar) for bar in table.bars), default=0) or 1
    dark, light = blocks[0], blocks[1]
    found = []
    for first, second in table.bars:
        length = round((first + second) / scale * width) or bool(first + second)
        part = round(first / scale * width)
        found.append(dark * min(part, length) + light * (length - part))
    return found
