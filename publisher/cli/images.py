"""`publisher list` and `publisher show`."""

from __future__ import annotations

import click

from publisher.browse.images import ImageDetails, ListedImage, describe_images, show_image
from publisher.browse.values import details_value, listed_value
from publisher.cli.failures import DONE, SOME_FAILED
from publisher.cli.image_config import print_config
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, repository_option
from publisher.cli.published_names import complete_images
from publisher.cli.rendering import echo, message, print_json, warn
from publisher.cli.repositories import open_repository
from publisher.errors import PublisherError, printable
from publisher.sizes import human_size, plural
from publisher.times import format_time, utc_now


@click.command("list")
@click.argument("pattern", default="", shell_complete=complete_images)
@repository_option
@output_option
@log_options
def list_command(pattern: str, repository: str | None, output: str) -> int:
    """List the published images, or those whose names match the glob PATTERN.

    Sizes are those of all files, unpacked. Ends with 1 if an image or a record is unreadable.

    \b
    publisher list --repository dir:/srv/images
    publisher list 'docker.io/library/*'
    """
    problems: list[PublisherError] = []
    opened = open_repository(repository)
    found = list(describe_images(opened, pattern, utc_now(), problems.append))
    if output == "json":
        print_json("list/1", {"images": [listed_value(each) for each in found]})
    else:
        _print_list(found)
        if pattern and not found:
            message(f"no published image matches {pattern!r}")
    for problem in problems:
        warn(problem)
    unreadable = [each.image.name for each in found if each.image.problem]
    if unreadable:
        message(f"{plural(len(unreadable), 'image')} unreadable")
        message("try: publisher verify", prefix="  ")
    return SOME_FAILED if problems or unreadable else DONE


@click.command()
@click.argument("image", shell_complete=complete_images)
@repository_option
@output_option
@log_options
def show(image: str, repository: str | None, output: str) -> int:
    """Show everything about a published IMAGE: a name as listed, or an image reference.

    Ends with 1 if a part of it is unreadable.
    """
    problems: list[PublisherError] = []
    details = show_image(open_repository(repository), image, problems.append)
    if output == "json":
        print_json("show/1", details_value(details))
    else:
        _print_details(details)
    for problem in problems:
        warn(problem)
    if details.image.problem or details.config_problem:
        message(f"a part of {details.image.name} is unreadable")
        message("try: publisher verify", prefix="  ")
    unreadable = problems or details.image.problem or details.config_problem
    return SOME_FAILED if unreadable else DONE


def _print_list(found: list[ListedImage]) -> None:
    width = max((len(each.image.name) for each in found), default=0)
    for each in found:
        image = each.image
        if image.manifest is None:
            echo(f"{image.name:{width}}  unreadable: {printable(image.problem)}")
            continue
        when = format_time(image.publication.published_at) if image.publication else "?"
        size = "?" if each.size is None else human_size(each.size)
        line = (
            f"{image.name:{width}}  {image.manifest.image_id[7:19]}  "
            f"{plural(len(image.manifest.layers), 'layer'):>9}  {size:>9}  {when}"
        )
        if each.pin is not None:
            line += f"  pinned until {each.pin.until}" if each.pin.until else "  pinned"
        if each.scheduled is not None:
            line += f"  scheduled, may be removed from {format_time(each.scheduled.not_before)}"
        echo(line)


def _print_details(details: ImageDetails) -> None:
    found = details.image
    echo(found.name)
    if found.problem:
        echo(f"  unreadable:  {printable(found.problem)}")
        return
    if found.publication:
        echo(f"  reference:   {printable(found.publication.reference)}")
        echo(f"  platform:    {printable(found.publication.platform)}")
        echo(f"  published:   {format_time(found.publication.published_at)}")
        if found.publication.wish_list:
            echo(f"  wish list:   {printable(found.publication.wish_list)}")
        for label, text in (("owner", found.publication.owner), ("note", found.publication.note)):
            if text:
                echo(f"  {label + ':':12} {printable(text)}")
    echo(f"  manifest:    {found.manifest_digest}")
    _print_paths(details)
    if details.config is not None:
        print_config(details.config, "  ")
    if details.config_problem:
        echo(f"  config:      unreadable: {printable(details.config_problem)}")
    echo("  layers, bottom to top:")
    for layer in details.layers:
        users = "" if layer.images < 0 else f"  in {plural(layer.images, 'image')}"
        echo(f"    {layer.path}  {human_size(layer.size)} compressed{users}")
    for entry in details.scheduled:
        echo(
            f"  scheduled:   {entry.manifest_digest} may be removed from "
            f"{format_time(entry.not_before)} ({printable(entry.reason)})"
        )


def _print_paths(details: ImageDetails) -> None:
    if details.image.linked:
        echo(f"  flat image:  {details.flat_path}")
    if details.squashfs_path:
        echo(f"  squashfs:    {details.squashfs_path}")
    for path in details.sbom_paths:
        echo(f"  sbom:        {path}")
