"""`publisher pin` and `publisher unpin`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import click

from publisher.cli.logs import log_options
from publisher.cli.options import output_option, repository_option, wait_option
from publisher.cli.published_names import complete_images
from publisher.cli.rendering import echo, print_json
from publisher.cli.repositories import open_repository
from publisher.removal import pins as use_cases
from publisher.times import utc_now
from publisher.tree.pins import Pin


@click.command()
@click.argument("image", required=False, shell_complete=complete_images)
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="The last day of the pin, such as 2027-03-31 (UTC); by default, the pin has no end.",
)
@click.option("--reason", default="", help="The reason, which is shown with the pin.")
@repository_option
@wait_option
@output_option
@log_options
def pin(
    image: str | None,
    until: datetime | None,
    reason: str,
    repository: str | None,
    wait: float,
    output: str,
) -> None:
    """Keep IMAGE as it is: its tag is not followed, it is never scheduled, and never collected.

    NAME@DIGEST pins one exact image, also one that its tag no longer names and that is scheduled
    for removal. Without IMAGE, list the pins.

    \b
    publisher pin docker.io/library/debian:12 --until 2027-03-31 --reason 'survey campaign'
    publisher pin
    """
    if image is None:
        if until is not None or reason:
            raise click.UsageError("Name the IMAGE to pin; without one, the pins are listed.")
        _print(use_cases.list_pins(open_repository(repository)), output, "pinned")
        return
    published = open_repository(repository, writable=True, wait=wait)
    last = None if until is None else until.date()
    try:
        pins = use_cases.pin(published, image, utc_now, until=last, reason=reason)
    finally:
        published.close()
    _print(pins, output, "pinned")


@click.command()
@click.argument("image", shell_complete=complete_images)
@repository_option
@wait_option
@output_option
@log_options
def unpin(image: str, repository: str | None, wait: float, output: str) -> None:
    """Remove the pin of IMAGE: its tag is followed again, and it can be scheduled and collected.

    A scheduled image gets its whole grace period, counted from now.

    \b
    publisher unpin docker.io/library/debian:12
    """
    published = open_repository(repository, writable=True, wait=wait)
    try:
        pins = use_cases.unpin(published, image, utc_now)
    finally:
        published.close()
    _print(pins, output, "unpinned")


def _print(pins: Sequence[Pin], output: str, word: str) -> None:
    if output == "json":
        print_json("pins/1", {word: [each.to_value() for each in pins]})
        return
    today = utc_now().date()
    for each in pins:
        echo(f"{word}: {each.name}  {each.manifest_digest[7:19]}{_until(each, today)}")


def _until(pin: Pin, today: date) -> str:
    text = f"  {pin.reason}" if pin.reason else ""
    if pin.until is None:
        return text
    return f"  {'expired since' if pin.until < today else 'until'} {pin.until}{text}"
