"""`publisher stats`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from publisher.browse.statistics.collect import (
    Named,
    Problem,
    ReadContents,
    Statistics,
    collect_statistics,
)
from publisher.browse.statistics.shares import Share
from publisher.browse.statistics.totals import Sizes
from publisher.browse.statistics.values import share_value, statistics_value
from publisher.cli.bars import Bar
from publisher.cli.failures import DONE, SOME_FAILED
from publisher.cli.logs import log_options
from publisher.cli.options import repository_option
from publisher.cli.rendering import message, print_as_it_is, print_json
from publisher.cli.repositories import open_repository
from publisher.cli.tables import Table, print_tables
from publisher.errors import printable
from publisher.repository import Repository
from publisher.sizes import human_size, plural

if TYPE_CHECKING:
    from publisher.browse.statistics.contents import Contents
    from publisher.browse.statistics.holdings import Holdings, Unreadable

_TABLES = ("images", "owners", "lists", "growth", "users", "catalogs")
_MONTHS = 12

top_option = click.option(
    "--top",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many of the largest to show as text.",
)


@click.command()
@click.option(
    "--contents",
    is_flag=True,
    help="Also read all entries of the layer indexes: distinct contents of files, the sizes of "
    "flat images, and the catalogs of CVMFS. The first time takes some seconds for each million "
    "entries of layers.",
)
@top_option
@click.option(
    "--output",
    type=click.Choice(["text", "json", "csv"]),
    default="text",
    show_default=True,
    help="How to print the result. JSON has a documented, versioned form: see docs/output.md.",
)
@click.option(
    "--table",
    type=click.Choice(_TABLES),
    default="images",
    show_default=True,
    help="Which table to print as CSV.",
)
@repository_option
@log_options
def stats(contents: bool, top: int, output: str, table: str, repository: str | None) -> int:
    """Show what the repository holds, what sharing saves, and what removals would free.

    Only records and the headers of layer indexes are read. "Exclusive" is what no other image uses:
    `publisher gc` frees it once the image, or all images of the owner or list, are removed. Ends
    with 1 if something could not be counted.

    \b
    publisher stats --repository dir:/srv/images
    publisher stats --contents --output json
    publisher stats --output csv --table owners
    """
    opened = open_repository(repository)
    found = collect_statistics(opened, _reader(opened) if contents else None)
    if output == "json":
        print_json("stats/1", statistics_value(found))
    elif output == "csv":
        _print_csv(*_csv_table(found, table))
    else:
        print_tables(_tables(found, top))
    return report_problems(found.problems)


def report_problems(problems: Sequence[Problem]) -> int:
    """Print what was not counted, each once; return the exit code."""
    lines = dict.fromkeys(map(_problem_line, problems))
    for line in lines:
        message(line)
    if problems:
        message(f"{plural(len(lines), 'problem')}: what they name is not counted, or not fully")
        message("try: publisher verify", prefix="  ")
    return SOME_FAILED if problems else DONE


def _reader(repository: Repository) -> ReadContents:
    # What merges layers, and the cache: the other figures do without.
    from publisher.browse.statistics.contents import read_contents
    from publisher.cli.state import user_cache

    def read(holdings: Holdings, unreadable: Unreadable) -> Contents:
        in_layers = sum(size.entries for size in holdings.layers.values())
        images = {each.image_id: each.layers for each in holdings.holders if each.published}
        in_images = sum(
            holdings.layers[digest].entries
            for layers in images.values()
            for digest in layers
            if digest in holdings.layers
        )
        message(
            f"counting {in_layers:,} entries of {plural(len(holdings.layers), 'layer')} and "
            f"{in_images:,} of {plural(len(images), 'image')}"
        )
        done = 0
        with Bar("entries") as bar:

            def advance(entries: int) -> None:
                nonlocal done
                done += entries
                bar.show(done, in_layers + in_images)

            return read_contents(
                repository,
                holdings,
                unreadable,
                advance,
                cache=user_cache(repository.url, "contents"),
            )

    return read


# Text


def _tables(found: Statistics, top: int) -> list[Table]:
    months = found.growth[-_MONTHS:]
    return [
        Table("", ("repository", ""), _summary(found)),
        Table(
            "layers, by the number of images that use them",
            ("images", "layers", "stored"),
            [(f"{e.images:,}", f"{e.layers:,}", human_size(e.stored)) for e in found.users],
            [(e.stored, 0) for e in found.users],
        ),
        _sizes_table("layers, by their number of entries", "layers", found.entries),
        *(_contents_tables(found.contents) if found.contents else ()),
        Table(
            "growth: what exists today, by its time of publication",
            ("month", "published", "removed", "images", "stored"),
            [
                (
                    e.month,
                    f"{e.published:,}",
                    f"{e.removed:,}",
                    f"{e.images:,}",
                    human_size(e.stored),
                )
                for e in months
            ],
            [(e.stored, 0) for e in months],
        ),
        _named_table("largest images", "image", found.images[:top]),
        _named_table("largest owners", "owner", found.owners[:top]),
        _named_table("largest wish lists", "list", found.lists[:top]),
    ]


def _summary(found: Statistics) -> list[tuple[str, str]]:
    sums, contents = found.totals, found.contents
    files = contents.files if contents else sums.files
    rows = [
        ("images", f"{sums.images:,}, with {plural(sums.names, 'name')}"),
        ("retired images", f"{sums.retired:,}, which alone use {human_size(sums.retired_only)}"),
        ("layers", f"{sums.layers:,}"),
        ("entries of layers", f"{sums.entries:,}"),
        ("files of layers", "unknown without --contents" if files is None else f"{files:,}"),
        ("stored", human_size(sums.stored)),
        ("without shared layers", human_size(sums.separate)),
        ("saved by sharing layers", _saving(sums.saved, sums.separate)),
    ]
    if sums.single_files:
        rows.append(("squashfs files", human_size(sums.single_files)))
    if contents:
        rows += [
            (
                "flat images, each by itself",
                f"{human_size(contents.flat_bytes)} in {contents.flat_entries:,} entries",
            ),
            (
                "distinct contents",
                f"{contents.contents:,}, {human_size(contents.content_bytes)}",
            ),
            (
                "saved by sharing contents",
                f"{_saving(contents.saved, contents.file_bytes)} of the layers, in CVMFS",
            ),
        ]
    if sums.unknown:
        rows.append(("not counted", f"{plural(sums.unknown, 'layer')} without a readable index"))
    return rows


def _saving(saved: int, of: int) -> str:
    share = f" ({100 * saved / of:.0f} %)" if of else ""
    return f"{human_size(saved)}{share}"


def _contents_tables(contents: Contents) -> list[Table]:
    return [
        _sizes_table(
            f"catalogs planned for CVMFS, by their number of entries "
            f"({contents.over:,} over the limit of {contents.limit:,})",
            "catalogs",
            contents.catalogs,
        ),
        Table(
            "largest catalogs",
            ("directory", "entries"),
            [(each.path, f"{each.entries:,}") for each in contents.largest],
        ),
    ]


def _sizes_table(title: str, what: str, sizes: Sequence[Sizes]) -> Table:
    return Table(
        title,
        ("entries", what, "together"),
        [(_bound(each.most), f"{each.trees:,}", f"{each.entries:,}") for each in sizes],
        [(each.trees, 0) for each in sizes],
    )


def _bound(most: int | None) -> str:
    return f"up to {most:,}" if most is not None else "more"


def _named_table(title: str, what: str, named: Sequence[Named]) -> Table:
    return Table(
        title,
        (what, *SHARE_COLUMNS),
        [(each.name, *share_cells(each.share)) for each in named],
        [(each.share.exclusive, each.share.shared) for each in named],
    )


SHARE_COLUMNS = ("layers", "files", "size", "shared", "exclusive", "frees")
"""What a table has about what images use."""


def share_cells(share: Share) -> tuple[str, ...]:
    """Return the cells of these columns."""
    return (
        f"{share.layers:,}",
        "?" if share.files is None else f"{share.files:,}",
        human_size(share.stored),
        human_size(share.shared),
        human_size(share.exclusive),
        human_size(share.freed),
    )


def _problem_line(problem: Problem) -> str:
    """Return the error, with the name if the error does not contain it."""
    name, text = printable(problem.name), str(problem.error)
    return text if name in text else f"{name}: {text}"


# CSV


def _csv_table(found: Statistics, table: str) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
    """Return the columns and rows of one table; the keys are those of the JSON document."""
    value = statistics_value(found)
    contents = value["contents"]
    key = {
        "lists": "wishLists",
        "users": "layersByUsers",
        "catalogs": "layersByEntries",
    }.get(table, table)
    rows = value[key]
    if table == "catalogs" and isinstance(contents, dict):
        rows = contents["catalogsByEntries"]
    assert isinstance(rows, list)
    columns = {
        "growth": ("month", "published", "removed", "images", "bytes"),
        "users": ("images", "layers", "bytes"),
        "catalogs": ("most", "count", "entries"),
    }.get(table) or ("name", *share_value(Share(0, 0, 0, 0, 0, 0, 0, 0, 0)))
    return columns, [[row[column] for column in columns] for row in rows]


def _print_csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table as RFC 4180 describes it; what is not known is empty."""
    import csv  # not for the other forms
    import io

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(
        [printable(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
    )
    print_as_it_is(text.getvalue())
