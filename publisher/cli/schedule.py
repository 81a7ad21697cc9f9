"""`publisher schedule`, `publisher remove` and `publisher restore`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import click

from publisher.cli.logs import log_options
from publisher.cli.options import output_option, repository_option, wait_option
from publisher.cli.published_names import complete_images
from publisher.cli.removal import Duration
from publisher.cli.rendering import echo, print_json
from publisher.cli.repositories import open_repository
from publisher.errors import printable
from publisher.removal import schedule as use_cases
from publisher.removal.schedule import Planned
from publisher.removal.values import entry_value, planned_value
from publisher.repository import Repository
from publisher.sizes import human_size, plural
from publisher.times import format_time, utc_now


@click.command()
@click.argument("action", type=click.Choice(["list"]), default="list", metavar="[list]")
@repository_option
@output_option
@log_options
def schedule(action: str, repository: str | None, output: str) -> None:
    """Show the scheduled images: from when each may be removed, why, and how much that frees.

    Nothing is changed. The size of an image counts the layers that only it and the images in the
    lines above use.

    \b
    publisher schedule --repository dir:/srv/images
    publisher schedule --output json | jq '[.entries[].bytes] | add'
    """
    planned = use_cases.list_schedule(open_repository(repository), utc_now())
    if output == "json":
        print_json("schedule/1", {"entries": [planned_value(each) for each in planned]})
        return
    width = max((len(each.entry.name) for each in planned), default=0)
    for each in planned:
        entry = each.entry
        echo(
            f"{_when(each):20}  {entry.name:{width}}  {entry.manifest_digest[7:19]}  "
            f"{human_size(each.size):>9}  {entry.reason_text}"
            + (f"  (stays: {each.problem})" if each.problem else "")
        )
    total = human_size(sum(each.size for each in planned))
    echo(f"{plural(len(planned), 'image')} scheduled, {total} to be freed")


@click.command()
@click.argument(
    "images",
    nargs=-1,
    required=True,
    metavar="IMAGE...",
    shell_complete=complete_images,
)
@click.option(
    "--grace",
    type=Duration(),
    metavar="DURATION",
    help="How long it stays usable (30d, 36h, 0d); by default, the grace period of its wish.",
)
@click.option(
    "--drop-link",
    is_flag=True,
    help="Remove the public link at once; running jobs are not affected.",
)
@click.option(
    "--unreadable",
    is_flag=True,
    help="Discard IMAGE, whose metadata is damaged and cannot be repaired, at once.",
)
@repository_option
@wait_option
@output_option
@log_options
def remove(
    images: tuple[str, ...],
    grace: timedelta | None,
    drop_link: bool,
    unreadable: bool,
    repository: str | None,
    wait: float,
    output: str,
) -> None:
    """Schedule every published IMAGE for removal, for all its platforms.

    IMAGE is a public name, a pattern of names in quotes, or an image reference. Images stay usable
    for their grace periods, and are then collected by `publisher gc`. Until then `publisher
    restore` takes them back. An image that a wish list still requests is published again by the
    next ingest: remove the wish as well.

    \b
    publisher remove docker.io/library/debian:12
    publisher remove 'quay.io/astro/*' docker.io/library/debian:12
    publisher remove docker.io/library/debian:12 --grace 0d --drop-link && publisher gc
    """
    published = open_repository(repository, writable=True, wait=wait)
    if unreadable:
        _discard(published, images, output)
        return
    try:
        removed = use_cases.remove(published, images, utc_now, grace=grace, drop_link=drop_link)
    finally:
        published.close()
    if output == "json":
        values = [
            entry_value(each.entry) | {"wishLists": list(each.wish_lists)} for each in removed
        ]
        print_json("remove/1", {"scheduled": values})
        return
    wish_lists = sorted({wish_list for each in removed for wish_list in each.wish_lists})
    for each in removed:
        until = format_time(each.entry.not_before)
        echo(f"scheduled: {each.entry.name}  may be removed from {until}")
    for wish_list in wish_lists:
        echo(
            f"note: the next ingest of {wish_list} publishes again what it still requests", err=True
        )


@click.command()
@click.argument("image", shell_complete=complete_images)
@repository_option
@wait_option
@output_option
@log_options
def restore(image: str, repository: str | None, wait: float, output: str) -> None:
    """Take IMAGE off the remove schedule, or publish an earlier image of its tag again.

    NAME@DIGEST is an image that its tag no longer names: it is published under its name again, and
    the present one is scheduled. The next ingest follows the tag again, unless the image is pinned.

    \b
    publisher restore docker.io/library/debian:12
    publisher restore quay.io/astro/tool:1@sha256:… && publisher pin quay.io/astro/tool:1
    """
    published = open_repository(repository, writable=True, wait=wait)
    try:
        from publisher.removal.restore import restore as restore_image

        names = restore_image(published, image, utc_now)
    finally:
        published.close()
    if output == "json":
        print_json("restore/1", {"restored": names})
        return
    for name in names:
        echo(f"restored: {name}")


def _discard(published: Repository, images: Sequence[str], output: str) -> None:
    try:
        from publisher.verify.discard import discard_unreadable

        findings = [(image, discard_unreadable(published, image)) for image in images]
    finally:
        published.close()
    if output == "json":
        print_json("remove/1", {"scheduled": [], "discarded": list(images)})
        return
    for image, finding in findings:
        echo(f"discarded: {image}: {printable(finding.what)}")
    echo("its content stays; try: publisher verify --repair && publisher gc --orphans")


def _when(planned: Planned) -> str:
    moment = planned.held_until
    if planned.problem:
        return "kept"
    return "pinned" if moment is None else format_time(moment)
