"""`publisher ingest` and `publisher ingest-image`."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from functools import partial
from types import FrameType

import click

from publisher.cli.failures import (
    OTHER_RUN,
    REPOSITORY_UNUSABLE,
    USAGE,
    UsageError,
    print_error,
)
from publisher.cli.ingest_output import code_of, render, render_parts
from publisher.cli.logs import is_shown, log_options
from publisher.cli.metrics import MetricsFile, ingest_updates, metrics_option
from publisher.cli.notifications import Notifier, notify_option
from publisher.cli.options import (
    allow_local_option,
    jobs_option,
    locked_option,
    output_option,
    platform_option,
    quiet_option,
    repository_option,
    wait_option,
    wish_lists_argument,
)
from publisher.cli.policies import admission_for, policy_option, prefix_option
from publisher.cli.progress import Display, PlainProgress, QuietProgress
from publisher.cli.quotas import QuotaOptions, quota_options
from publisher.cli.recorded_run import RecordedRun, Result, identity_of
from publisher.cli.rendering import message
from publisher.cli.repositories import open_repository
from publisher.cli.sources import load_settings, open_sources, source_options
from publisher.cli.wishlists import read_list, selected_lists
from publisher.cli.workers import open_workers, workers_option
from publisher.ingest.admission import Admission
from publisher.ingest.group import DEFAULT_GROUP
from publisher.ingest.lists import (
    Part,
    ingest_lists,
    record_reported_failures,
    with_states_of_lists,
)
from publisher.ingest.memory import UnreadableList
from publisher.ingest.report import Report, Status
from publisher.ingest.run import ingest as run_ingest
from publisher.ingest.selection import ListedRequests, Selection
from publisher.lazy import dataclass
from publisher.repository.descriptors import raise_limit
from publisher.repository.settings import load_policy
from publisher.sources.settings import Settings
from publisher.sources.wish_lists import project_identity
from publisher.state.overlap import OtherRun
from publisher.state.store import State
from publisher.wishlist import WishListError, wish_for
from publisher.wishlist.model import Request

verify_option = click.option(
    "--verify-publish",
    is_flag=True,
    help="Read everything that is published back through the mount (CVMFS repositories).",
)


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


no_progress_option = click.option(
    "--no-progress",
    is_flag=True,
    help="Print results only, not the steps towards them: one line for a run without changes.",
)


group_option = click.option(
    "--group",
    type=click.IntRange(1, 256),
    default=DEFAULT_GROUP,
    show_default=True,
    help="How many images, which became ready during a commit, the next commit may publish "
    "together; 1 for a commit of its own for each image.",
)


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of `ingest` and `ingest-image`. `wait` is in seconds."""

    jobs: int
    workers: int | None
    wait: float
    verify_publish: bool
    progress: bool
    sources: Mapping[str, str | None]
    admission: Admission = field(default_factory=Admission)
    retry_failed: bool = False
    selection: Selection = field(default_factory=Selection)
    group: int = 1
    quota: QuotaOptions | None = None


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
        raise _no_dry_run("ingest", "plan", *wishlists, *where)
    options = _Options(
        jobs,
        workers,
        wait,
        verify_publish,
        not (quiet or no_progress),
        source_settings,
        retry_failed=retry_failed,
        selection=Selection(only, changed),
        group=group,
        quota=QuotaOptions.of(
            project, quota_images, quota_bytes, quota_lists, map(identity_of, wishlists)
        ),
    )
    run = RecordedRun(
        "ingest",
        wishlists,
        notifier=Notifier(notify),
        metrics=MetricsFile(None) if options.selection.is_partial else metrics_file,
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
            options = replace(options, admission=admission_for(policy, prefix, requests))
            with run.alone((each.repository, each.identity) for each in lists):
                parts = ingest_lists(
                    selected_lists(lists, options.selection),
                    lambda requests, url, ended: _run(
                        requests, url, options, run.state(url), ended
                    ),
                    run.state,
                )
                parts = with_states_of_lists(parts, lists, unreadable, run.state)
                run.exit_code = render_parts(parts, new_failures, quiet, output)
                for part in parts:
                    if new_failures or (run.notifies and part.is_usable):
                        record_reported_failures(part, run.state(part.repository))
            for part in parts:
                _record(run, part, new_failures)
            if len(parts) == 1 and parts[0].error:
                run.end_by(parts[0].error)
                print_error(parts[0].error)
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
    run.done(part.repository, _result(report, part.lists, codes), updates)


def _result(report: Report, lists: tuple[str, ...], codes: Mapping[str, int]) -> Result:
    counts = {str(status): count for status in Status if (count := report.count(status))}
    fetched = sum(outcome.bytes_fetched for outcome in report.outcomes)
    return Result(counts, lists, fetched, report.steps, codes)


@click.command("ingest-image")
@click.argument("reference")
@platform_option(default=("linux/amd64",))
@click.option("--name", help="The name of an image that does not come from a registry.")
@prefix_option
@quota_options
@click.option("--dry-run", is_flag=True, hidden=True)
@repository_option
@jobs_option
@workers_option
@wait_option
@verify_option
@source_options
@no_progress_option
@quiet_option
@output_option
@log_options
def ingest_image(
    reference: str,
    platforms: tuple[str, ...],
    name: str | None,
    prefix: str,
    project: str,
    quota_images: int | None,
    quota_bytes: int | None,
    quota_lists: tuple[str, ...],
    dry_run: bool,
    repository: str | None,
    jobs: int,
    workers: int | None,
    wait: float,
    verify_publish: bool,
    no_progress: bool,
    quiet: bool,
    output: str,
    **source_settings: str | None,
) -> int:
    """Publish one image, without a wish list.

    REFERENCE is HOST/PATH/NAME:TAG, or oci:DIR:TAG for an OCI image layout. Of several platforms
    the first is public at the plain path, and each of them below .multiarch/.

    \b
    publisher ingest-image docker.io/library/debian:stable --repository dir:/srv/images
    publisher ingest-image oci:./layout:v1 --name tools --repository dir:/srv/images
    """
    if dry_run:
        where = ("--repository", repository) if repository else ()
        raise _no_dry_run("ingest-image", "inspect", reference, *where)
    progress = not (quiet or no_progress)
    identity = project_identity(project) if project else ""
    with RecordedRun("ingest-image") as run:
        requests = [Request(wish_for(reference, platforms=platforms, name=name), identity)]
        options = _Options(
            jobs,
            workers,
            wait,
            verify_publish,
            progress,
            source_settings,
            admission_for(None, prefix, requests),
            retry_failed=True,
            quota=QuotaOptions.of(project, quota_images, quota_bytes, quota_lists, (identity,)),
        )
        report = _run(requests, repository, options, run.state(repository))
        run.done(repository, _result(report, (), {}))
        run.exit_code = render(report, quiet, output)
        return run.exit_code


def _no_dry_run(command: str, instead: str, *arguments: str) -> UsageError:
    return UsageError(
        f"cannot use --dry-run with {command}",
        why=f"publisher {instead} shows what it would do",
        hint=shlex.join(("publisher", instead, *arguments)),
    )


def _run(
    requests: Sequence[Request],
    url: str | None,
    options: _Options,
    state: State,
    ended: Callable[[Report], None] = lambda report: None,
) -> Report:
    stop = threading.Event()
    raise_limit()
    workers = open_workers(options.workers)  # no process is started yet
    repository = open_repository(
        url,
        writable=True,
        may_be_new=True,
        wait=options.wait,
        verify=options.verify_publish,
        workers=workers,
    )
    try:
        with (
            workers,
            open_sources(options.sources) as sources,
            _progress_for(not options.progress) as progress,
            _stopping_on_signals(stop, progress),
        ):
            return run_ingest(
                requests,
                repository,
                sources,
                jobs=options.jobs,
                group=options.group,
                workers=workers,
                policy=load_policy(repository),
                admission=options.admission,
                progress=progress,
                stop=stop,
                state=state,
                retry_failed=options.retry_failed,
                selection=options.selection,
                quota=options.quota.run_quota(repository) if options.quota else None,
                ended=ended,
            )
    finally:
        repository.close()


def _progress_for(quiet: bool) -> Display:
    """Return the display for where stderr goes: none with --quiet, live on a terminal.

    A log on stderr that has the steps replaces it.
    """
    if quiet or is_shown():
        return QuietProgress()
    if not sys.stderr.isatty():
        return PlainProgress()
    from publisher.cli.live_progress import live_progress  # rich is slow to import

    return live_progress()


@contextmanager
def _stopping_on_signals(stop: threading.Event, progress: Display) -> Iterator[None]:
    """Stop in order on the first SIGINT or SIGTERM, and at once on the second one.

    Both are safe: a transaction that was begun is finished or discarded by the next command.
    """

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)  # the third one does not wait for the terminal
            progress.close()
            os._exit(128 + number)
        stop.set()
        message("stopping after the running steps; interrupt again to stop at once")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
