"""`publisher export`."""

from __future__ import annotations

import click

from publisher.browse.export import published_wishes
from publisher.cli.failures import DONE, SOME_FAILED
from publisher.cli.logs import log_options
from publisher.cli.options import repository_option
from publisher.cli.published_names import complete_images
from publisher.cli.rendering import echo, message
from publisher.cli.repositories import open_repository
from publisher.errors import PublisherError
from publisher.wishlist.writing import write_wish_list


@click.command()
@click.argument("pattern", default="", shell_complete=complete_images)
@click.option(
    "--digests", is_flag=True, help="Add to each image the digest that is published of it."
)
@click.option(
    "--thin",
    metavar="NAME",
    help="The name of thin images in the list, such as 'registry.example.org/thin/$(image)'. "
    "Without it, no image of the list has the output thin.",
)
@repository_option
@log_options
def export(pattern: str, digests: bool, thin: str | None, repository: str | None) -> int:
    """Print a wish list with the published images, or those whose names match the glob PATTERN.

    Each image has its platforms, outputs, grace period, owner and note. Images on the remove
    schedule are left out. Ends with 1 if an image is left out because its record is unreadable.

    \b
    publisher export --repository dir:/srv/images > wishlist.yaml
    publisher export 'quay.io/*' --digests
    """
    opened = open_repository(repository)
    unreadable: dict[str, str] = {}
    options = {"digests": digests, "thin": thin is not None}
    wishes = list(published_wishes(opened, pattern, unreadable.__setitem__, **options))
    for name, why in unreadable.items():
        message(f"left out: {name}: {why}")
    if not wishes:
        raise PublisherError(
            "cannot write a wish list",
            why=f"no published image matches {pattern!r}" if pattern else "nothing is published",
            hint="publisher list",
        )
    echo(write_wish_list(wishes, str(opened.url), thin).removesuffix("\n"))
    return SOME_FAILED if unreadable else DONE
