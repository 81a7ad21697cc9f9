"""`publisher expand`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from publisher.cli.failures import DONE, SOME_FAILED
from publisher.cli.logs import log_options
from publisher.cli.options import (
    allow_local_option,
    jobs_option,
    output_option,
    wish_lists_argument,
)
from publisher.cli.rendering import echo, failed_line, print_json
from publisher.cli.sources import load_settings, open_sources, source_options
from publisher.cli.wishlists import read_all_requests
from publisher.errors import printable
from publisher.ingest.expand import ExpandedImage
from publisher.ingest.expand import expand as run_expand
from publisher.sources.wish_lists import list_identity
from publisher.times import utc_now
from publisher.wishlist import Problem


@click.command()
@wish_lists_argument
@jobs_option
@source_options
@allow_local_option
@output_option
@log_options
def expand(
    wishlists: tuple[str, ...],
    allow_local: bool,
    jobs: int,
    output: str,
    **source_settings: str | None,
) -> int:
    """Print the images that the wish lists WISHLIST... request now, one reference per line.

    Patterns are replaced by the tags that match them in the registry: one request for each wish
    with patterns, and none for the others. Wishes that have expired are left out.

    \b
    publisher expand wishlist.yaml
    publisher expand wishlist.yaml | xargs -I {} skopeo inspect docker://{}
    """
    settings = load_settings(source_settings)
    requests, unusable = read_all_requests(wishlists, settings, allow_local=allow_local)
    with open_sources(source_settings) as sources:
        images = run_expand(requests, sources, utc_now(), jobs=jobs)
    values = [_value(image) for image in images] + [_unusable(problem) for problem in unusable]
    if output == "json":
        print_json("expand/1", {"images": values})
    else:
        _print(values)
    return SOME_FAILED if any(value["error"] for value in values) else DONE


def _value(image: ExpandedImage) -> dict[str, Any]:
    return {
        "reference": image.reference,
        "name": image.name,
        "wishList": image.request.wish_list,
        "line": image.request.wish.line,
        "column": image.request.wish.column,
        "error": image.error,
    }


def _unusable(problem: Problem) -> dict[str, Any]:
    return {
        "reference": problem.subject,
        "name": problem.subject,
        "wishList": list_identity(problem.file),
        "line": problem.line,
        "column": problem.column,
        "error": problem.text,
    }


def _print(values: Sequence[Mapping[str, Any]]) -> None:
    for value in values:
        if not value["error"]:
            echo(printable(value["reference"]))
    for value in values:
        if value["error"]:
            place = value["wishList"], value["line"], value["column"]
            echo(failed_line(value["name"], value["error"], *place), err=True)
