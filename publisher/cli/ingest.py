"""`publisher ingest`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import click

from publisher.cli.failures import OTHER_RUN, REPOSITORY_UNUSABLE, USAGE, print_error
from publisher.cli.ingest_output import code_of, render_parts
from publisher.cli.ingest_run import (
    IngestOptions,
    no_dry_run,
    no_progress_option,
    publish,
    result_of,
    verify_option,
)
from publisher.cli.logs import log_options
from publisher.cli.metrics import MetricsFile, ingest_updates, metrics_option
from publisher.cli.notifications import Notifier, notify_option
from publisher.cli.options import (
    allow_local_option,
    jobs_option,
    locked_option,
    output_option,
    quiet_option,
    repository_option,
    wait_option,
    wish_lists_argument,
)
from publisher.cli.policies import admission_for, policy_option, prefix_option
from publisher.cli.quotas import QuotaOptions, quota_options
from publisher.cli.recorded_run import RecordedRun, identity_of
from publisher.cli.rendering import message
from publisher.cli.sources import load_settings, source_options
from publisher.cli.wishlists import read_list, selected_lists
from publisher.cli.workers import workers_option
from publisher.ingest.group import DEFAULT_GROUP
from publisher.ingest.lists import (
    Part,
    ingest_lists,
    record_reported_failures,
    with_states_of_lists,
)
from publisher.ingest.memory import UnreadableList
from publisher.ingest.selection import ListedRequests, Selection
from publisher.sources.settings import Settings
from publisher.state.overlap import OtherRun
from publisher.wishlist import WishListError

retry_failed_option = click.option(
    "--retry-failed",
    is_flag=True,
    help="Try images now that failed before. Otherwise an image that fails is tried again after 5 "
    "minutes, and then less and less often, down to once a day.",
)


only_option = click.option(
    "--only",
    metavar="PATTERN",
    multiple=True,
    help="Work only on the wishes and images whose text or public name matches the glob pattern, "
    "such as '*/astro/*'. Can be given several times.",
)


changed_option = click.option(
    "--changed",
    is_flag=True,
    help="Work only on wishes that are new in the list, or were changed there, since a run tried "
    "them. The others cost no request.",
)


new_failures_option = click.option(
    "--new-failures",
    is_flag=True,
    help="For scheduled runs: print a failure, and end with 1, only when an image begins to fail, "
    "fails with another cause, and each 7 days that it lasts.",
)


group_option = click.option(
    "--group",
    type=click.IntRange(1, 256),
    default=DEFAULT_GROUP,
    show_default=True,
    help="How many images, which became ready during a commit, the next commit may publish "
    "together; 1 for a commit of its own for each image.",
)


@click.command()
@wish_lists_argument
@click.option("--dry-run", is_flag=True, hidden=True)
@policy_option
@prefix_option
@quota_options
@repository_option
@jobs_option
@group_option
@workers_option
@wait_option
@verify_option
@locked_option
@only_option
@changed_option
@retry_failed_option
@new_failures_option
@source_options
@allow_local_option
@metrics_option
@notify_option
@no_progress_option
@quiet_option
@output_option
@log_options
def ingest(
    wishlists: tuple[str, ...],
    dry_run: bool,
    policy: str | None,
    prefix: str,
    project: str,
    quota_images: int | None,
    quota_bytes: int | None,
    quota_lists: tuple[str, ...],
    allow_local: bool,
    locked: bool,
    only: tuple[str, ...],
    changed: bool,
    retry_failed: bool,
    new_failures: bool,
    repository: str | None,
    jobs: int,
    group: int,
    workers: int | None,
    wait: float,
    verify_publish: bool,
    metrics_file: MetricsFile,
    notify: str | None,
    no_progress: bool,
    quiet: bool,
    output: str,
    **source_settings: str | None,
) -> int:
    """Publish the images that the wish lists WISHLIST... request ("-" reads standard input).

    An image that is current costs one request and changes nothing. Each other image becomes
    visible in one transaction, whole or not at all; one that fails never stops the others. The
    repository is the one that the list names, unless --repository is given. `publisher plan`
    shows what an ingest would do.

    \b
    publisher ingest wishlist.yaml
    publisher ingest wishlist.yaml --locked
    publisher ingest wishlist.yaml --only '*/astro/*' --retry-failed
    publisher ingest wishlist.yaml --no-progress --new-failures      # in a scheduled job
    publisher ingest lists/*.yaml --repository dir:/srv/images --jobs 8
    publisher ingest wishlist.yaml --output json | jq '.outcomes[] | select(.status == "failed")'
    """
    if dry_run:
        where = ("--repository", repository) if repository else ()
        raise no_dry_run("ingest", "plan", *wishlists, *where)
    identities = map(identity_of, wishlists)
    quota = QuotaOptions.of(project, quota_images, quota_bytes, quota_lists, identities)
    selection = Selection(only, changed)
    run = RecordedRun(
        "ingest",
        wishlists,
        notifier=Notifier(notify),
        metrics=MetricsFile(None) if selection.is_partial else metrics_file,
    )
    try:
        with run:
            if repository:
                run.begin(repository)  # so that a list which cannot be read is recorded as well
            settings = load_settings(source_settings)
            lists, unreadable = _read_lists(
                wishlists,
                repository,
                settings,
                allow_local=allow_local,
                locked=locked,
                warnings=not new_failures,
            )
            for each in lists:
                run.begin(each.repository)  # so that each later error is recorded
            requests = [request for each in lists for request in each.requests]
            options = IngestOptions(
                jobs=jobs,
                workers=workers,
                wait=wait,
                verify_publish=verify_publish,
                progress=not (quiet or no_progress),
                sources=source_settings,
                admission=admission_for(policy, prefix, requests),
                quota=quota,
                retry_failed=retry_failed,
                selection=selection,
                group=group,
            )
            with run.alone((each.repository, each.identity) for each in lists):
                parts = _publish_lists(run, lists, unreadable, options)
                run.exit_code = render_parts(parts, new_failures, quiet, output)
                _record_reported(run, parts, new_failures)
            _record_parts(run, parts, new_failures)
            return run.exit_code
    except OtherRun:
        if quiet and new_failures:
            return OTHER_RUN  # the other run prints what is new
        raise


def _read_lists(
    paths: Sequence[str],
    repository: str | None,
    settings: Settings,
    *,
    allow_local: bool,
    locked: bool,
    warnings: bool,
) -> tuple[list[ListedRequests], list[UnreadableList]]:
    """Read all lists; one that cannot be read does not stop the others.

    Raises:
        WishListError: No list can be read.
    """
    lists: list[ListedRequests] = []
    unreadable: list[tuple[str, WishListError]] = []
    for path in paths:
        try:
            lists.append(
                read_list(
                    path,
                    repository,
                    settings,
                    allow_local=allow_local,
                    locked=locked,
                    warnings=warnings,
                )
            )
        except WishListError as error:
            unreadable.append((path, error))
    if not lists:
        for _, other in unreadable[1:]:
            message(str(other))
        raise unreadable[0][1]
    return lists, [UnreadableList(identity_of(path), str(error)) for path, error in unreadable]


def _publish_lists(
    run: RecordedRun,
    lists: Sequence[ListedRequests],
    unreadable: Sequence[UnreadableList],
    options: IngestOptions,
) -> list[Part]:
    """Publish what the lists request, and remember which lists could be read."""
    parts = ingest_lists(
        selected_lists(lists, options.selection),
        lambda requests, url, ended: publish(requests, url, options, run.state(url), ended),
        run.state,
    )
    return with_states_of_lists(parts, lists, unreadable, run.state)


def _record_reported(run: RecordedRun, parts: Sequence[Part], new_failures: bool) -> None:
    """Remember the failures that were printed as new, or that receivers are notified of."""
    for part in parts:
        if new_failures or (run.notifies and part.is_usable):
            record_reported_failures(part, run.state(part.repository))


def _record_parts(run: RecordedRun, parts: Sequence[Part], new_failures: bool) -> None:
    """Record the run in each repository; print the error that ended it in the only one."""
    for part in parts:
        _record(run, part, new_failures)
    if len(parts) == 1 and parts[0].error:
        run.end_by(parts[0].error)
        print_error(parts[0].error)


def _record(run: RecordedRun, part: Part, new_failures: bool) -> None:
    """Record what was done in one repository, in the state, in messages and in metrics."""
    report = part.report
    updates = None
    if part.is_usable and run.notifies:
        from publisher.cli.events import ingest_events

        events = ingest_events(report, part.requests)
        run.notify(part.repository, events, problems=[], at_end=report.interrupted)
    if part.is_usable and not report.is_partial:
        updates = partial(ingest_updates, report=report, lists=set(part.lists))
    code = code_of(replace(report, outcomes=report.of_images), new_failures)
    codes = dict.fromkeys(part.lists, code if part.is_usable else REPOSITORY_UNUSABLE)
    codes |= {each.wish_list: USAGE for each in report.of_lists}
    run.done(part.repository, result_of(report, part.lists, codes), updates)
