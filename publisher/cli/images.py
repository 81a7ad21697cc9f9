"""`publisher list` and `publisher show`."""

from __future__ import annotations

from typing import Any

import click

from publisher.browse.images import ImageDetails, list_images, show_image
from publisher.cli.completion import complete_images
from publisher.cli.image_config import config_value, print_config
from publisher.cli.options import debug_option, output_option, repository_option
from publisher.cli.rendering import human_size, plural, print_json
from publisher.cli.repositories import open_repository
from publisher.errors import printable
from publisher.repository.published import PublishedImage
from publisher.times import format_time


@click.command("list")
@click.argument("pattern", default="", shell_complete=complete_images)
@repository_option
@output_option
@debug_option
def list_command(pattern: str, repository: str | None, output: str) -> None:
    """List the published images, or those whose names match the glob PATTERN.

    \b
    publisher list --repository dir:/srv/images
    publisher list 'docker.io/library/*'
    """
    images = list(list_images(open_repository(repository), pattern))
    if output == "json":
        print_json("list/1", {"images": [_image_value(image) for image in images]})
        return
    width = max((len(image.name) for image in images), default=0)
    for image in images:
        if image.manifest is None:
            click.echo(f"{image.name:{width}}  unreadable: {printable(image.problem)}")
            continue
        when = format_time(image.publication.published_at) if image.publication else "?"
        click.echo(
            f"{image.name:{width}}  {image.manifest.image_id[7:19]}  "
            f"{plural(len(image.manifest.layers), 'layer'):>9}  "
            f"{human_size(image.manifest.size):>9}  {when}"
        )


@click.command()
@click.argument("image", shell_complete=complete_images)
@repository_option
@output_option
@debug_option
def show(image: str, repository: str | None, output: str) -> None:
    """Show everything about a published IMAGE: a name as listed, or an image reference."""
    details = show_image(open_repository(repository), image)
    if output == "json":
        print_json("show/1", _details_value(details))
        return
    found = details.image
    click.echo(found.name)
    if found.problem:
        click.echo(f"  unreadable:  {printable(found.problem)}")
        return
    if found.publication:
        click.echo(f"  reference:   {printable(found.publication.reference)}")
        click.echo(f"  platform:    {printable(found.publication.platform)}")
        click.echo(f"  published:   {format_time(found.publication.published_at)}")
        if found.publication.wish_list:
            click.echo(f"  wish list:   {printable(found.publication.wish_list)}")
        for label, text in (("owner", found.publication.owner), ("note", found.publication.note)):
            if text:
                click.echo(f"  {label + ':':12} {printable(text)}")
    click.echo(f"  manifest:    {found.manifest_digest}")
    if found.linked:
        click.echo(f"  flat image:  {details.flat_path}")
    if details.config is not None:
        print_config(details.config, "  ")
    if details.config_problem:
        click.echo(f"  config:      unreadable: {printable(details.config_problem)}")
    click.echo("  layers, bottom to top:")
    for layer in details.layers:
        users = "" if layer.images < 0 else f"  in {plural(layer.images, 'image')}"
        click.echo(f"    {layer.path}  {human_size(layer.size)}{users}")
    for entry in details.scheduled:
        click.echo(
            f"  scheduled:   {entry.manifest_digest} may go from {format_time(entry.not_before)} "
            f"({printable(entry.reason)})"
        )


def _image_value(image: PublishedImage) -> dict[str, Any]:
    value: dict[str, Any] = {
        "name": image.name,
        "manifestDigest": image.manifest_digest,
        "linked": image.linked,
    }
    if image.manifest is not None:
        value |= {
            "imageId": image.manifest.image_id,
            "layers": len(image.manifest.layers),
            "compressedBytes": image.manifest.size,
        }
    if image.publication is not None:
        record = image.publication
        value |= {
            "reference": record.reference,
            "sourceDigest": record.source_digest,
            "platform": record.platform,
            "outputs": list(record.outputs),
            "publishedAt": format_time(record.published_at),
            "wishList": record.wish_list,
            "owner": record.owner,
            "note": record.note,
        }
    if image.problem:
        value["problem"] = image.problem
    return value


def _details_value(details: ImageDetails) -> dict[str, Any]:
    value = _image_value(details.image)
    value["layers"] = [
        {
            "digest": layer.digest,
            "compressedBytes": layer.size,
            "path": layer.path,
            "images": None if layer.images < 0 else layer.images,
        }
        for layer in details.layers
    ]
    return value | {
        "flatPath": details.flat_path,
        "config": config_value(details.config_data) if details.config else None,
        "scheduled": [entry.to_value() for entry in details.scheduled],
    }
