"""`publisher thin`."""

from __future__ import annotations

import click

from publisher.cli.failures import UsageError
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, repository_option
from publisher.cli.published_names import complete_images
from publisher.cli.rendering import echo, print_json
from publisher.cli.repositories import open_repository
from publisher.cli.sources import open_sources, source_options
from publisher.ingest.thin_images import build_thin, names_by_platform, save_thin
from publisher.ingest.thin_push import push_thin


@click.command()
@click.argument("image", shell_complete=complete_images)
@click.option(
    "--push", metavar="REF", help="Push to HOST/PATH/NAME:TAG, or docker-daemon:NAME:TAG."
)
@click.option(
    "--save", metavar="PLACE", help="Save as oci:DIRECTORY:TAG or docker-archive:FILE:NAME:TAG."
)
@click.option("--print", "print_recipe", is_flag=True, help="Print the recipe (the default).")
@click.option("--flat", is_flag=True, help="Write a recipe of one layer, the flat image.")
@click.option(
    "--through-engine",
    is_flag=True,
    help="Push with the Docker engine (DOCKER_HOST) and its credentials.",
)
@repository_option
@source_options
@output_option
@log_options
def thin(
    image: str,
    push: str | None,
    save: str | None,
    print_recipe: bool,
    flat: bool,
    through_engine: bool,
    repository: str | None,
    output: str,
    **source_settings: str | None,
) -> None:
    """Make the thin image of a published IMAGE: an image whose only content is a recipe.

    It has the config of the original. An engine needs a plugin that mounts the trees that the
    recipe names. If IMAGE is published for several platforms, the thin image is an index of all.

    \b
    publisher thin docker.io/library/debian:stable
    publisher thin docker.io/library/debian:stable --push registry.example.org/thin/debian:stable
    publisher thin docker.io/library/debian:stable --save docker-archive:thin.tar:thin/debian:stable
    """
    if sum(map(bool, (push, save, print_recipe))) > 1:
        raise UsageError(
            "cannot use --push, --save and --print together", hint="use only one of them"
        )
    if through_engine and not push:
        raise UsageError(
            "cannot use --through-engine without --push", hint="add --push HOST/PATH/NAME:TAG"
        )
    opened = open_repository(repository)
    built = build_thin(opened, names_by_platform(opened, image), flat=flat)
    if push:
        with open_sources(source_settings) as sources:
            pushed = push_thin(built, push, sources, through_engine=through_engine)
        _report(output, "pushed" if pushed.sent else "unchanged", pushed.reference, pushed.digest)
    elif save:
        _report(output, "saved", save_thin(built, save), built.top.digest)
    else:
        for each in built.images:
            click.echo(each.recipe.to_bytes(), nl=False)


def _report(output: str, what: str, reference: str, digest: str) -> None:
    if output == "json":
        print_json("thin/1", {"result": what, "reference": reference, "digest": digest})
    else:
        echo(f"{what}: {reference}  {digest}")
