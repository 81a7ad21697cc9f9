"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from publisher.cli.failures import UsageError
from publisher.durations import DEFAULT_WAIT

if TYPE_CHECKING:
    from publisher.oci.platform import Platform

output_option = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print the result. JSON has a documented, versioned form: see docs/output.md.",
)
repository_option = click.option(
    "--repository",
    metavar="URL",
    envvar="PUBLISHER_REPOSITORY",
    show_envvar=True,
    help="The published file system: dir:PATH (or just a path), or cvmfs:NAME.",
)
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="How many images, and how many layers, to work on at a time.",
)
wait_option = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=DEFAULT_WAIT,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait while another publisher changes the repository.",
)
allow_local_option = click.option(
    "--allow-local",
    is_flag=True,
    help="Let wish lists that come over the network name files, directories and the container "
    "engine of this host, as local lists may.",
)
locked_option = click.option(
    "--locked",
    is_flag=True,
    help="Use the digests in the lock beside each list (LIST.lock), also of tags that have moved "
    "since. An error if a lock is missing, or not that of the present list.",
)
wish_lists_argument = click.argument(
    "wishlists",
    nargs=-1,
    required=True,
    metavar="WISHLIST...",
    type=click.Path(allow_dash=True),  # an address as well; shells complete it as a file
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print failures only.")


def platform_option(default: tuple[str, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--platform`, as the parameter `platforms`."""
    return click.option(
        "--platform",
        "platforms",
        multiple=True,
        metavar="OS/ARCH[/VARIANT]",
        default=default,
        show_default=bool(default),
        help="A platform, such as linux/arm64; may be given several times.",
    )


def read_platforms(texts: Sequence[str]) -> tuple[Platform, ...]:
    """Parse the values of --platform; raises UsageError."""
    from publisher.oci.platform import Platform

    try:
        return tuple(Platform.parse(text) for text in texts)
    except ValueError as error:
        raise UsageError("cannot use --platform", why=str(error)) from error
