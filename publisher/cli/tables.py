"""Tables with small charts: on a terminal with lines and bars, elsewhere as plain columns."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from publisher.cli.rendering import echo
from publisher.errors import printable

_BAR_WIDTH = 20


@dataclass(frozen=True, slots=True)
class Table:
    """A table. The first column is aligned to the left, all others to the right.

    `bars` has a number for each row, of which a terminal shows a bar.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    bars: Sequence[float] = ()


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
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        echo("  ".join(cells).rstrip())


def _print_rich(tables: Sequence[Table]) -> None:
    from rich.console import Console  # rich is slow to import
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    block = "#" if console.options.ascii_only else "█"
    for table in tables:
        shown = RichTable(
            title=table.title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0)
        )
        for number, column in enumerate(table.columns):
            shown.add_column(
                column, justify="right" if number else "left", overflow="fold", ratio=None
            )
        if table.bars:
            shown.add_column("", no_wrap=True)
        largest = max(table.bars, default=0)
        for number, row in enumerate(table.rows):
            # Text is not markup, so that brackets in names are shown as they are.
            cells = [Text(printable(cell)) for cell in row]
            if table.bars:
                part = table.bars[number] / largest if largest else 0
                cells.append(Text(block * round(part * _BAR_WIDTH), style="cyan"))
            shown.add_row(*cells)
        console.print(shown)
        console.print()
