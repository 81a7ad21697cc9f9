"""`publisher plan`."""

from __future__ import annotations

import logging
from itertools import chain

import click

from publisher.cli.failures import CHANGES_PENDING, DONE, SOME_FAILED
from publisher.cli.logs import log_options
from publisher.cli.options import (
    allow_local_option,
    jobs_option,
    locked_option,
    output_option,
    repository_option,
    wish_lists_argument,
)
from publisher.cli.policies import admission_for, policy_option, prefix_option
from publisher.cli.quotas import QuotaOptions, quota_options
from publisher.cli.recorded_run import identity_of
from publisher.cli.rendering import echo, failed_line, print_json
from publisher.cli.repositories import open_repository
from publisher.cli.sources import load_settings, open_sources, source_options
from publisher.cli.wishlists import read_requests
from publisher.errors import printable
from publisher.ingest.plan import PlannedImage, unusable_image
from publisher.ingest.plan import plan as make_plan
from publisher.ingest.report import Status
from publisher.log_context import event, logged_image
from publisher.repository.settings import load_policy
from publisher.sizes import human_size, plural
from publisher.times import utc_now

_log = logging.getLogger(__name__)

_WORDS = {Status.PUBLISHED: "new", Status.UPDATED: "moved", Status.RECORDED: "to record"}


@click.command()
@wish_lists_argument
@click.option(
    "--detailed-exitcode",
    is_flag=True,
    help=f"End with {CHANGES_PENDING} instead of {DONE} if an ingest would change something.",
)
@policy_option
@prefix_option
@quota_options
@repository_option
@jobs_option
@locked_option
@source_options
@allow_local_option
@output_option
@log_options
def plan(
    wishlists: tuple[str, ...],
    detailed_exitcode: bool,
    policy: str | None,
    prefix: str,
    project: str,
    quota_images: int | None,
    quota_bytes: int | None,
    quota_lists: tuple[str, ...],
    allow_local: bool,
    locked: bool,
    repository: str | None,
    jobs: int,
    output: str,
    **source_settings: str | None,
) -> int:
    """Show what `publisher ingest WISHLIST...` would do now, and change nothing.

    \b
    publisher plan wishlist.yaml --repository dir:/srv/images
    publisher plan wishlist.yaml --detailed-exitcode || publisher ingest wishlist.yaml
    """
    identities = map(identity_of, wishlists)
    quota = QuotaOptions.of(project, quota_images, quota_bytes, quota_lists, identities)
    requests, unusable = read_requests(
        wishlists,
        repository,
        load_settings(source_settings),
        allow_local=allow_local,
        locked=locked,
    )
    admission = admission_for(policy, prefix, chain.from_iterable(requests.values()))
    planned: list[PlannedImage] = []
    with open_sources(source_settings) as sources:
        for url, wanted in requests.items():
            opened = open_repository(url, may_be_new=True)
            planned += make_plan(
                wanted,
                opened,
                sources,
                utc_now(),
                jobs=jobs,
                limits=load_policy(opened).limits,
                admission=admission,
                quota=quota.run_quota(opened) if quota else None,
            )
    planned += map(unusable_image, unusable)
    failed = [image for image in planned if image.status is Status.FAILED]
    for image in failed:
        _log_failure(image)
    if output == "json":
        print_json("plan/1", {"images": [_value(image) for image in planned]})
    else:
        _print(planned)
    if failed:
        return SOME_FAILED
    changes = any(image.status in _WORDS for image in planned)
    return CHANGES_PENDING if changes and detailed_exitcode else DONE


def _log_failure(image: PlannedImage) -> None:
    """Log that an image would fail, as an ingest does for one that has failed."""
    data = event(
        "image-done",
        status=str(image.status),
        reference=image.reference,
        wishList=image.wish_list,
        error=image.error,
    )
    with logged_image(image.name):
        _log.error("%s", printable(f"{image.status}: {image.error}"), extra=data)


def _value(image: PlannedImage) -> dict[str, object]:
    return {
        "name": image.name,
        "reference": image.reference,
        "status": str(image.status),
        "newLayers": image.new_layers,
        "knownLayers": image.known_layers,
        "error": image.error,
        "wishList": image.wish_list,
        "line": image.line,
        "column": image.column,
    }


def _print(planned: list[PlannedImage]) -> None:
    new: dict[str, int] = {}
    for image in planned:
        if image.status in _WORDS:
            echo(
                f"{_WORDS[image.status]}: {image.name}  {plural(len(image.new_layers), 'layer')} "
                f"to fetch ({human_size(sum(image.new_layers.values()))}), "
                f"{image.known_layers} already stored"
            )
            new |= image.new_layers
        elif image.status in (Status.PINNED, Status.EXPIRED):
            echo(f"{image.status}: {image.name}")
    unchanged = sum(image.status is Status.UNCHANGED for image in planned)
    echo(
        f"{unchanged} unchanged; {plural(len(new), 'layer')}, {human_size(sum(new.values()))} "
        "to fetch in all"
    )
    for image in planned:
        if image.error:
            place = image.wish_list, image.line, image.column
            echo(failed_line(image.name, image.error, *place), err=True)
