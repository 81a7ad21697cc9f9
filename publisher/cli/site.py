"""`publisher site`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from publisher.cli.failures import DONE, SOME_FAILED, UsageError
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, repository_option
from publisher.cli.published_names import complete_images
from publisher.cli.rendering import echo, print_json, warn
from publisher.cli.repositories import open_repository
from publisher.cli.state import open_state
from publisher.errors import PublisherError, install_hint
from publisher.sizes import plural
from publisher.times import utc_now


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--title",
    metavar="TEXT",
    default="Container images",
    show_default=True,
    help="The title of the site.",
)
@click.option(
    "--contents",
    type=click.IntRange(min=0),
    default=500_000,
    show_default=True,
    metavar="ENTRIES",
    help="Show the files and packages of the images that were published last, as many as have "
    "together so many files and directories; 0 for none.",
)
@click.option(
    "--compare",
    "pairs",
    nargs=2,
    multiple=True,
    metavar="OLD NEW",
    shell_complete=complete_images,
    help="Add a page about what differs between two images; may be given several times. Images "
    "whose tag moved are compared with the earlier one in any case.",
)
@repository_option
@output_option
@log_options
def site(
    directory: Path,
    title: str,
    contents: int,
    pairs: tuple[tuple[str, str], ...],
    repository: str | None,
    output: str,
) -> int:
    """Write web pages about the published images to DIRECTORY: a static site.

    A list of images to search, sort and filter, wishes, removals, and a page for each image: how to
    run it, its layers, its config, files and packages, and what its name pointed to before. The
    pages are plain files: open index.html, or let any web server serve the directory.

    Run it again after each ingest: only pages whose contents changed are written, each in one step,
    and pages of images that are gone are removed. DIRECTORY must be new, empty, or a site that this
    command wrote. Ends with 1 if a record is unreadable.

    \b
    publisher site /srv/www/images --repository dir:/srv/images
    publisher site /srv/www/images --title "Images of the physics cluster"
    """
    try:
        import jinja2  # noqa: F401  # of the extra `site`, like what the next line imports

        from publisher.site.survey import Remembered
        from publisher.site.write import write_site
    except ModuleNotFoundError as error:
        raise UsageError(
            "cannot write a site",
            why=f"the Python package {error.name} is missing",
            hint=install_hint("site"),
        ) from error
    opened = open_repository(repository)
    problems: list[PublisherError] = []
    with open_state(repository) as state:
        runs = state.last_runs()[:1]
        remembered = Remembered(
            state.wishes(), runs[0] if runs else None, os.path.exists(state.path)
        )
    now = utc_now()
    changes = write_site(
        opened, directory, title, remembered, now, problems.append, entries=contents, pairs=pairs
    )
    if output == "json":
        value = {
            "directory": str(directory.absolute()),
            "written": changes.written,
            "unchanged": changes.unchanged,
            "removed": changes.removed,
        }
        print_json("site/1", value)
    else:
        echo(
            f"{directory}/index.html: {plural(changes.written, 'file')} written, "
            f"{changes.unchanged} unchanged, {changes.removed} removed"
        )
    for problem in problems:
        warn(problem)
    return SOME_FAILED if problems else DONE
