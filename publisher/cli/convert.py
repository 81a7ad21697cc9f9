"""`publisher import`."""

from __future__ import annotations

import click

from publisher.cli.failures import DONE, SOME_FAILED
from publisher.cli.logs import log_options
from publisher.cli.rendering import echo
from publisher.cli.wishlists import read_document
from publisher.errors import printable
from publisher.sources.settings import Settings
from publisher.wishlist.conversion import convert_list


@click.command("import")
@click.argument("list_", metavar="LIST", type=click.Path(allow_dash=True))
@log_options
def import_command(list_: str) -> int:
    """Convert LIST to a wish list of version 2, and print it ("-" reads standard input).

    LIST is a text file with one [REGISTRY/]NAME[:TAG] per line, as OSG's docker_images.txt, or a
    wish list of version 1, as DUCC's recipe.yaml. The images and comments are the same. An entry
    that cannot be used becomes a comment, is named on stderr, and the command ends with 1.

    \b
    publisher import docker_images.txt > wishlist.yaml
    publisher import recipe.yaml > wishlist.yaml
    """
    converted = convert_list(read_document(list_, Settings()), list_)
    echo(converted.text.removesuffix("\n"))
    for problem in converted.problems:
        echo(printable(str(problem)), err=True)
    return SOME_FAILED if converted.problems else DONE
