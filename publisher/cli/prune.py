"""`publisher prune`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import click

from publisher.cli.failures import DONE, SOME_FAILED, USAGE
from publisher.cli.logs import log_options
from publisher.cli.metrics import MetricsFile, metrics_option, run_updates
from publisher.cli.notifications import Notifier, notify_option
from publisher.cli.options import (
    allow_local_option,
    jobs_option,
    output_option,
    quiet_option,
    repository_option,
    wait_option,
)
from publisher.cli.recorded_run import RecordedRun, Result
from publisher.cli.rendering import echo, print_json
from publisher.cli.repositories import open_repository
from publisher.cli.sources import load_settings, open_sources, source_options
from publisher.cli.wishlists import read_wish_list
from publisher.errors import printable
from publisher.log_context import event, logged_image
from publisher.removal.prune import GivenList, Report
from publisher.removal.prune import prune as run_prune
from publisher.removal.values import entry_value
from publisher.removal.withdrawal import Guard
from publisher.sizes import plural
from publisher.sources.settings import Settings
from publisher.sources.wish_lists import list_identity
from publisher.times import format_time, utc_now
from publisher.wishlist import WishListError

_log = logging.getLogger(__name__)

_SHOWN = 20
"""How many of the images that would be scheduled a refusal names."""
_NOTHING = "nothing was scheduled"
_INTENDED = "--at-most N or --yes-really, if that is intended"


@click.command()
@click.argument("wishlists", nargs=-1, metavar="[WISHLIST]...", type=click.Path(allow_dash=True))
@click.option("--dry-run", is_flag=True, help="Print what would be scheduled, and change nothing.")
@click.option(
    "--withdrawn",
    multiple=True,
    metavar="LIST",
    help="A wish list that is not used any more, so that it requests nothing. It is not read; may "
    "be given several times.",
)
@click.option(
    "--whole",
    is_flag=True,
    help="The lists decide about the whole repository, also about images that were published from "
    "other lists or by hand.",
)
@click.option(
    "--drop-links",
    is_flag=True,
    help="Remove the public links at once, instead of at collection.",
)
@click.option("--yes-really", is_flag=True, help="Schedule any number of images.")
@click.option(
    "--at-most",
    type=click.IntRange(min=0),
    metavar="N",
    help="Schedule up to N images; by default, a fifth of those that the lists published.",
)
@repository_option
@jobs_option
@wait_option
@source_options
@allow_local_option
@metrics_option
@notify_option
@quiet_option
@output_option
@log_options
def prune(
    wishlists: tuple[str, ...],
    dry_run: bool,
    withdrawn: tuple[str, ...],
    allow_local: bool,
    whole: bool,
    drop_links: bool,
    yes_really: bool,
    at_most: int | None,
    repository: str | None,
    jobs: int,
    wait: float,
    metrics_file: MetricsFile,
    notify: str | None,
    quiet: bool,
    output: str,
    **source_settings: str | None,
) -> int:
    """Schedule for removal what the wish lists WISHLIST... published and no longer request.

    A list is a file, an http(s) address, or git+https://HOST/REPOSITORY.git//PATH@BRANCH. Images
    that were published from other lists, or by hand, are left alone. Nothing is deleted: a
    scheduled image stays usable for its grace period, and leaves the schedule if a list requests it
    again before `publisher gc` collects it. If a list is empty or has an error, or if the tags of a
    pattern cannot be listed, nothing is scheduled.

    \b
    publisher prune wishlist.yaml --dry-run
    publisher prune lists/*.yaml --repository dir:/srv/images
    publisher prune git+https://git.example.org/wishes.git//astro.yaml@main --at-most 50
    publisher prune --withdrawn old.yaml --yes-really --repository dir:/srv/images
    """
    if not (wishlists or withdrawn):
        raise click.UsageError("Missing argument '[WISHLIST]...'.")
    gone = frozenset(map(list_identity, withdrawn))
    run = RecordedRun(
        "prune", wishlists, notifier=Notifier(notify), metrics=metrics_file, dry_run=dry_run
    )
    with run:
        if repository:
            run.begin(repository)  # so that a list which cannot be read is recorded as well
        settings = load_settings(source_settings)
        by_repository = _read_lists(wishlists, settings, repository, allow_local)
        if not by_repository:
            by_repository = {repository: []}
        for url in by_repository:
            run.begin(url)
        reports: list[tuple[str | None, str, Report]] = []
        with open_sources(source_settings) as sources:
            for url, lists in by_repository.items():
                published = open_repository(url, writable=not dry_run, wait=wait)
                try:
                    report = run_prune(
                        published,
                        lists,
                        sources,
                        utc_now,
                        withdrawn=gone,
                        whole=whole,
                        guard=Guard(at_most=at_most, off=yes_really),
                        drop_links=drop_links,
                        dry_run=dry_run,
                        jobs=jobs,
                    )
                finally:
                    published.close()
                reports.append((url, str(published.url), report))
        for _, _, report in reports:
            _log_failures(report)
        _render(reports, dry_run, quiet, output)
        is_invalid = any(e.wish_list.unusable for lists in by_repository.values() for e in lists)
        is_kept_back = any(_kept_back(report) for _, _, report in reports)
        run.exit_code = USAGE if is_invalid else SOME_FAILED if is_kept_back else DONE
        for url, _, report in reports:
            _record(run, url, by_repository[url], report)
        return run.exit_code


def _read_lists(
    paths: Sequence[str], settings: Settings, repository: str | None, allow_local: bool
) -> dict[str | None, list[GivenList]]:
    """Return the wish lists by the URLs of their repositories."""
    found: dict[str | None, list[GivenList]] = {}
    try:
        for path in paths:
            wish_list = read_wish_list(path, settings, repository, allow_local=allow_local)
            lists = found.setdefault(repository or wish_list.repository, [])
            lists.append(GivenList(list_identity(path), wish_list))
    except WishListError:
        echo(f"publisher: {_NOTHING}, because of an error in a wish list", err=True)
        raise
    return found


def _record(run: RecordedRun, url: str | None, lists: Sequence[GivenList], report: Report) -> None:
    identities = tuple(each.identity for each in lists)
    counts = {
        "scheduled": len(report.scheduled),
        "restored": len(report.restored),
        "kept": len(report.kept) + len(report.unreadable),
        "refused": len(report.withdrawn) if report.refused else 0,
    }
    result = Result(counts, identities)
    good = dict.fromkeys(identities, not _kept_back(report))
    if run.notifies:
        from publisher.cli.events import prune_events, prune_problems

        run.notify(url, prune_events(url, report), prune_problems(report))
    run.done(url, result, partial(run_updates, command="prune", lists=good))


def _render(
    reports: Sequence[tuple[str | None, str, Report]], dry_run: bool, quiet: bool, output: str
) -> None:
    if output == "json":
        values = [_value(url, report) for _, url, report in reports]
        print_json("prune/1", {"dryRun": dry_run, "repositories": values})
        return
    for _, _, report in reports:
        _print(report, dry_run, quiet)


def _kept_back(report: Report) -> bool:
    return bool(report.uncertain or report.refused or report.unreadable)


def _log_failures(report: Report) -> None:
    """Log what was kept back, and why, as errors."""
    for name, why in report.unreadable.items():
        with logged_image(name):
            _log.error("%s", printable(f"kept: {why}"), extra=event("notice"))
    whys = tuple(report.uncertain) or (report.refused,)
    hint = "" if report.uncertain else _INTENDED
    for why in filter(None, whys):
        data = event("command-failed", what=_NOTHING, why=why, hint=hint)
        _log.error("%s", printable(f"{_NOTHING}: {why}"), extra=data)


def _print(report: Report, dry_run: bool, quiet: bool) -> None:
    if not quiet:
        _print_changes(report, dry_run)
    for name, why in report.unreadable.items():
        echo(f"kept: {name}: {why}", err=True)
    for name in report.unknown_lists:
        echo(
            f"publisher: no image was published from {name}; if the list was renamed, see "
            "docs/removal.md",
            err=True,
        )
    if report.uncertain or report.refused:
        _print_refusal(report)
    elif not quiet:
        others = plural(report.others, "image")
        echo(
            f"{plural(len(report.scheduled), 'image')} {_would(dry_run)}scheduled"
            + (f"; {others} of other lists left alone" if report.others else "")
        )


def _print_changes(report: Report, dry_run: bool) -> None:
    would = _would(dry_run)
    for entry in report.scheduled:
        until = format_time(entry.not_before)
        echo(f"{would}scheduled: {entry.name}  may be removed from {until}")
    for name in report.restored:
        echo(f"{would}restored: {name}  is requested again")
    for name, why in report.kept.items():
        echo(f"kept: {name}  {why}")


def _print_refusal(report: Report) -> None:
    if report.uncertain:
        echo(f"publisher: {_NOTHING}: it is uncertain what the lists request", err=True)
        for why in report.uncertain:
            echo(f"  {why}", err=True)
        return
    echo(f"publisher: {_NOTHING}: {report.refused}", err=True)
    for name in report.withdrawn[:_SHOWN]:
        echo(f"  {name}", err=True)
    if len(report.withdrawn) > _SHOWN:
        echo(f"  and {len(report.withdrawn) - _SHOWN} more", err=True)
    echo(f"  try: {_INTENDED}", err=True)


def _would(dry_run: bool) -> str:
    return "would be " if dry_run else ""


def _value(url: str, report: Report) -> dict[str, object]:
    return {
        "repository": url,
        "scheduled": [entry_value(entry) for entry in report.scheduled],
        "restored": list(report.restored),
        "withdrawn": list(report.withdrawn),
        "kept": dict(report.kept),
        "unreadable": dict(report.unreadable),
        "others": report.others,
        "doubts": list(report.uncertain),
        "refused": report.refused,
        "unknownLists": list(report.unknown_lists),
    }
