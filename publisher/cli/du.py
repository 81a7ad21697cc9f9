"""`publisher du`."""

from __future__ import annotations

import click

from publisher.browse.statistics.collect import Problem
from publisher.browse.statistics.usage import ImageUsage, Usage, disk_usage
from publisher.browse.statistics.values import problem_value, share_value
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, repository_option
from publisher.cli.published_names import complete_images
from publisher.cli.rendering import print_json
from publisher.cli.repositories import open_repository
from publisher.cli.stats import SHARE_COLUMNS, report_problems, share_cells
from publisher.cli.tables import Table, print_tables
from publisher.sizes import human_size


@click.command()
@click.argument(
    "images",
    nargs=-1,
    required=True,
    metavar="IMAGE|PATTERN...",
    shell_complete=complete_images,
)
@click.option(
    "-d",
    "--depth",
    type=click.IntRange(min=0),
    help="Also show the largest directories of each image, down to this depth; 0 is the root.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many directories to show.",
)
@repository_option
@output_option
@log_options
def du(
    images: tuple[str, ...], depth: int | None, top: int, repository: str | None, output: str
) -> int:
    """Show how much space published images use, and what their removal would free.

    An image is a published name, or an image reference; a pattern is a glob of names. "Exclusive"
    are the bytes of layers that no other image uses. Of several images, the last line shows all
    together: what they share with each other is freed as well when all of them are removed. Ends
    with 1 if something could not be counted.

    \b
    publisher du docker.io/library/debian:stable --repository dir:/srv/images
    publisher du 'quay.io/stimela/*' --depth 2
    """
    problems: list[Problem] = []
    usage = disk_usage(
        open_repository(repository),
        images,
        lambda name, error: problems.append(Problem(name, error)),
        depth=depth,
        most=top,
    )
    if output == "json":
        print_json(
            "du/1",
            {
                "images": [_value(each) for each in usage.images],
                "together": share_value(usage.together),
                "problems": [problem_value(problem) for problem in problems],
            },
        )
    else:
        print_tables(_tables(usage))
    return report_problems(problems)


def _tables(usage: Usage) -> list[Table]:
    rows = [(each.name, *share_cells(each.share)) for each in usage.images]
    if len(rows) > 1:
        rows.append(("together", *share_cells(usage.together)))
    return [
        Table("", ("image", *SHARE_COLUMNS), rows),
        *(_directories(each) for each in usage.images),
    ]


def _directories(image: ImageUsage) -> Table:
    return Table(
        f"directories of {image.name}",
        ("directory", "files", "size"),
        [(f"/{each.path}", f"{each.files:,}", human_size(each.size)) for each in image.directories],
        [(each.size, 0) for each in image.directories],
    )


def _value(image: ImageUsage) -> dict[str, object]:
    directories = [
        {"path": each.path, "bytes": each.size, "files": each.files} for each in image.directories
    ]
    return {"name": image.name, **share_value(image.share), "directories": directories}
