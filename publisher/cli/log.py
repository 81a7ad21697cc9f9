"""`publisher log`."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice

import click

from publisher.cli.logs import log_options
from publisher.cli.options import output_option, repository_option
from publisher.cli.published_names import complete_images
from publisher.cli.rendering import echo, print_json
from publisher.cli.repositories import open_repository
from publisher.repository.published import find_name
from publisher.sizes import plural
from publisher.tree.history import Change, Record

_KINDS = (("trees", "tree", "added"), ("files", "file", "written"), ("removed", "path", "removed"))


@click.command()
@click.option(
    "--image",
    metavar="IMAGE",
    shell_complete=complete_images,
    help="Show the changes of this image only.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many transactions to show, the latest first.",
)
@repository_option
@output_option
@log_options
def log(image: str | None, limit: int, repository: str | None, output: str) -> None:
    """Show the transactions: their time, user and command, and what they changed.

    \b
    publisher log --repository dir:/srv/images
    publisher log --image docker.io/library/debian:stable --limit 100
    """
    opened = open_repository(repository)
    name = None if image is None else find_name(opened, image)
    found = (
        record
        for record in opened.history()
        if name is None or any(change.name == name for change in record.changes)
    )
    records = list(islice(found, limit))
    if output == "json":
        print_json("log/1", {"transactions": [asdict(record) for record in records]})
        return
    for record in records:
        echo(f"{record.time}  {record.user}@{record.host}  {record.purpose}  {_paths(record)}")
        for change in record.changes:
            if name is None or change.name == name:
                echo(f"    {_describe(change)}")


def _paths(record: Record) -> str:
    return ", ".join(
        f"{plural(record.paths[kind], noun)} {verb}"
        for kind, noun, verb in _KINDS
        if kind in record.paths
    )


def _describe(change: Change) -> str:
    return f"{change.what}: {change.name}" + (f" ({change.why})" if change.why else "")
