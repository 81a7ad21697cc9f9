"""`publisher run`."""

from __future__ import annotations

import shutil
import sys

import click

from publisher.browse.run import WAYS, choose_way, plan_run, start_by
from publisher.cli.logs import log_options
from publisher.cli.options import repository_option
from publisher.cli.published_names import complete_images
from publisher.cli.repositories import open_repository


@click.command()
@click.argument("image", shell_complete=complete_images)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--with",
    "way",
    type=click.Choice(["auto", *WAYS]),
    default="auto",
    show_default=True,
    help="The program that runs it; auto uses the first that is installed.",
)
@click.option(
    "--no-entrypoint", is_flag=True, help="COMMAND replaces the image's entry point as well."
)
@repository_option
@log_options
def run(
    image: str, command: tuple[str, ...], way: str, no_entrypoint: bool, repository: str | None
) -> None:
    """Run the flat image of a published IMAGE on this machine, to test it.

    Environment, user, working directory and command are those of the image's config; COMMAND after
    "--" replaces its command, not its entry point (but see --no-entrypoint). bwrap and chroot show
    the tree as it is; with podman the container can write, above it. Ends with the exit code of
    what was run.

    \b
    publisher run docker.io/library/debian:stable -- cat /etc/os-release
    publisher run docker.io/library/debian:stable --with podman
    """
    available = [name for name in WAYS if shutil.which(name)]
    chosen = choose_way(way, [name for name in available if name != "chroot"])
    start = plan_run(open_repository(repository), image, command, entrypoint=not no_entrypoint)
    sys.stdout.flush()
    start_by(chosen, start)
