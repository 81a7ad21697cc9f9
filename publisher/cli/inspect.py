"""`publisher inspect` and `publisher tags`: an image, and tags, at their source."""

from __future__ import annotations

import sys

import click

from publisher.browse.inspect import InspectedImage, Inspection, inspect_image
from publisher.browse.values import config_value
from publisher.cli.image_config import print_config
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, platform_option, read_platforms, repository_option
from publisher.cli.rendering import echo, print_json
from publisher.cli.repositories import open_repository
from publisher.cli.sources import open_sources, source_options
from publisher.errors import printable
from publisher.oci.reference import parse_reference
from publisher.oci.tag_patterns import natural
from publisher.sizes import human_size, plural
from publisher.sources.tags import expand_tags


@click.command()
@click.argument("reference")
@click.option("--raw", is_flag=True, help="Print the exact bytes of the manifest or index.")
@platform_option(default=())
@repository_option
@source_options
@output_option
@log_options
def inspect(
    reference: str,
    raw: bool,
    platforms: tuple[str, ...],
    repository: str | None,
    output: str,
    **source_settings: str | None,
) -> None:
    """Show what REFERENCE names: platforms, digests, configs, layers, sizes. Nothing is published.

    With a repository, layers that are published already, and are not fetched again, are marked.

    \b
    publisher inspect docker.io/library/debian:stable
    publisher inspect docker.io/library/debian:stable --raw | jq .
    """
    parsed = parse_reference(reference)
    published = open_repository(repository) if repository else None
    with open_sources(source_settings) as sources:
        source = sources.open(parsed)
        if raw:
            sys.stdout.buffer.write(source.manifest().data)
            return
        found = inspect_image(source, parsed, read_platforms(platforms), published)
    if output == "json":
        print_json(
            "inspect/1",
            {
                "reference": str(found.reference),
                "digest": found.document.digest,
                "mediaType": found.document.media_type,
                "platforms": [str(platform) for platform in found.platforms],
                "images": [_image_value(image) for image in found.images],
            },
        )
    else:
        _print(found)


@click.command()
@click.argument("image")
@click.option(
    "--match",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Only tags that match a glob ('1.7.*') or version range ('>=1.8,<2'), as in wish lists; "
    "may be given several times.",
)
@click.option(
    "--exclude", multiple=True, metavar="PATTERN", help="Omit tags that match; repeatable."
)
@source_options
@output_option
@log_options
def tags(
    image: str,
    patterns: tuple[str, ...],
    exclude: tuple[str, ...],
    output: str,
    **source_settings: str | None,
) -> None:
    """List the tags of the image repository IMAGE, as the patterns of a wish match them.

    \b
    publisher tags quay.io/stimela/casa --match '1.7.*' --exclude '*-rc*'
    """
    with open_sources(source_settings) as sources:
        source = sources.open(parse_reference(image))
        if patterns or exclude:
            found = expand_tags(source, patterns or ("*",), exclude)
        else:
            found = sorted(source.tags(), key=natural)
    if output == "json":
        print_json("tags/1", {"image": image, "tags": found})
    else:
        for tag in found:
            echo(printable(tag))


def _image_value(image: InspectedImage) -> dict[str, object]:
    return {
        "platform": str(image.platform),
        "manifestDigest": image.manifest_digest,
        "mediaType": image.media_type,
        "imageId": image.image_id,
        "config": config_value(image.config_document.data),
        "layers": [
            {
                "digest": layer.digest,
                "mediaType": layer.media_type,
                "compressedBytes": layer.size,
                "published": layer.published,
            }
            for layer in image.layers
        ],
    }


def _print(found: Inspection) -> None:
    echo(printable(str(found.reference)))
    echo(f"  digest:     {found.document.digest}")
    echo(f"  media type: {printable(found.document.media_type)}")
    echo(f"  platforms:  {printable(', '.join(map(str, found.platforms)))}")
    for image in found.images:
        size = sum({layer.digest: layer.size for layer in image.layers}.values())
        missing = sum(
            {layer.digest: layer.size for layer in image.layers if not layer.published}.values()
        )
        layers = f"{plural(len(image.layers), 'layer')}, {human_size(size)}"
        echo(f"  {printable(str(image.platform))}: {layers}")
        echo(f"    manifest: {image.manifest_digest}")
        echo(f"    image ID: {image.image_id}")
        print_config(image.config, "    ")
        for layer in image.layers:
            there = "" if layer.published is None else "  published" if layer.published else "  new"
            echo(f"    {layer.digest}  {human_size(layer.size):>9}{there}")
        if any(layer.published is not None for layer in image.layers):
            echo(f"    to be fetched: {human_size(missing)}")
