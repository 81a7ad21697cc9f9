"""`publisher gc`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial

import click

from publisher.cli.failures import DONE, SOME_FAILED
from publisher.cli.logs import log_options
from publisher.cli.metrics import MetricsFile, gc_updates, metrics_option
from publisher.cli.notifications import Notifier, notify_option
from publisher.cli.options import output_option, quiet_option, repository_option, wait_option
from publisher.cli.published_names import complete_images
from publisher.cli.recorded_run import RecordedRun, Result
from publisher.cli.removal import Duration, describe_released
from publisher.cli.rendering import echo, print_json
from publisher.cli.repositories import open_repository
from publisher.cli.sources import open_sources, source_options
from publisher.errors import printable
from publisher.removal.gc import Choice, Report, choose, collect
from publisher.removal.reference_counts import Released
from publisher.removal.schedule import list_schedule
from publisher.removal.thin import DeletedThin, delete_thin_images
from publisher.removal.values import entry_value
from publisher.repository import Repository
from publisher.sizes import human_size, plural
from publisher.times import format_time, utc_now


@click.command()
@click.option("--dry-run", is_flag=True, help="Print what would be collected, and change nothing.")
@click.option(
    "--grace",
    type=Duration(),
    metavar="DURATION",
    help="Use this grace period (30d, 36h) instead of those of the wishes.",
)
@click.option(
    "--image",
    metavar="IMAGE",
    shell_complete=complete_images,
    help="Collect this image only: a name, or NAME@DIGEST.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Collect at most this number of images.")
@click.option("--now", "at_once", is_flag=True, help="Treat every scheduled image as due.")
@click.option(
    "--delete-thin",
    is_flag=True,
    help="Also delete the thin images of collected images from their registries.",
)
@click.option(
    "--orphans",
    is_flag=True,
    help="Collect, instead, layers and flat images that no published or scheduled image uses.",
)
@repository_option
@wait_option
@source_options
@metrics_option
@notify_option
@quiet_option
@output_option
@log_options
def gc(
    dry_run: bool,
    grace: timedelta | None,
    image: str | None,
    limit: int | None,
    at_once: bool,
    delete_thin: bool,
    orphans: bool,
    repository: str | None,
    wait: float,
    metrics_file: MetricsFile,
    notify: str | None,
    quiet: bool,
    output: str,
    **source_settings: str | None,
) -> int:
    """Collect scheduled images whose grace period is over, and the layers that only they used.

    An image is scheduled when its tag moves, when `publisher prune` finds that no wish list
    requests it, or by `publisher remove`. It stays usable until it is due; pinned images are not
    collected. Images with unreadable records are kept and named, and the exit code is 1.

    \b
    publisher gc --dry-run
    publisher gc
    publisher gc --image docker.io/library/debian:12 --now
    publisher gc --orphans --dry-run
    """
    run = RecordedRun("gc", notifier=Notifier(notify), metrics=metrics_file, dry_run=dry_run)
    with run:
        run.begin(repository)
        if orphans:
            run.exit_code = _collect_orphans(run, repository, dry_run, wait, quiet, output)
            return run.exit_code
        published = open_repository(repository, writable=not dry_run, wait=wait)
        verbose = output == "text" and not quiet

        def print_released(released: Released) -> None:
            if verbose:
                echo(f"collected: {describe_released(released)}")

        try:
            choice = choose(published, grace=grace, at_once=at_once, image=image, limit=limit)
            report = collect(
                published, choice, utc_now, dry_run=dry_run, on_released=print_released
            )
            thin: list[DeletedThin] = []
            if delete_thin and not dry_run:
                with open_sources(source_settings) as sources:
                    thin = delete_thin_images(published, report.released, sources)
        finally:
            published.close()
        if output == "json":
            _print_json(report, thin, dry_run)
        else:
            if verbose and dry_run:
                for each in report.released:
                    echo(f"would be collected: {describe_released(each)}")
            _print_summary(report, dry_run, quiet)
            if image is not None and not (report.released or report.kept):
                echo(f"publisher: {image} stays: {_why_not(published, choice)}", err=True)
            _print_thin(thin, quiet)
        good = not (report.kept or any(deleted.error for deleted in thin))
        run.exit_code = DONE if good else SOME_FAILED
        counts = {
            "collected": len(report.released),
            "kept": len(report.kept),
            "waiting": report.waiting,
        }
        if run.notifies:
            from publisher.cli.events import gc_events, gc_problems

            run.notify(repository, gc_events(report), gc_problems(report))
        run.done(repository, Result(counts), partial(gc_updates, report=report, good=good))
        return run.exit_code


def _collect_orphans(
    run: RecordedRun, repository: str | None, dry_run: bool, wait: float, quiet: bool, output: str
) -> int:
    from publisher.verify.orphans import collect_orphans

    published = open_repository(repository, writable=not dry_run, wait=wait)
    try:
        orphans = collect_orphans(published, dry_run=dry_run)
    finally:
        published.close()
    paths = [finding.path for finding in orphans.findings]
    run.done(repository, Result({"orphans": len(paths)}))
    if output == "json":
        nothing = Report((), (), 0)
        _print_json(nothing, (), dry_run, orphans=paths, size=orphans.size)
    else:
        would = "would be collected" if dry_run else "collected"
        if not quiet:
            for path in paths:
                echo(f"{would}: {printable(path)}")
            echo(f"{plural(len(paths), 'orphan')} {would}: {human_size(orphans.size)}")
    for path in orphans.uncertain:
        echo(
            f"publisher: {printable(path)} is unreadable, so no content is known to be an orphan",
            err=True,
        )
    if orphans.uncertain:
        echo("  try: publisher verify", err=True)
    return SOME_FAILED if orphans.uncertain else DONE


def _print_thin(thin: Sequence[DeletedThin], quiet: bool) -> None:
    for deleted in thin:
        if deleted.error:
            echo(f"failed: thin image {deleted.reference}: {deleted.error}", err=True)
        elif not quiet:
            echo(f"thin image deleted: {deleted.reference}")


def _why_not(repository: Repository, choice: Choice) -> str:
    """Return why no scheduled image of that name is due."""
    planned = [
        each
        for each in list_schedule(repository, utc_now())
        if choice.only is None or choice.only.includes(*each.entry.key)
    ]
    if not planned:
        return "it is not scheduled (publisher remove)"
    held = [each.pin for each in planned if each.pin]
    if held:
        return f"it is pinned{f' until {held[0].until}' if held[0].until else ''}"
    due = min(map(choice.due_at, (each.entry for each in planned)))
    return f"it may be removed from {format_time(due)} (or with --now)"


def _print_json(
    report: Report,
    thin: Sequence[DeletedThin],
    dry_run: bool,
    *,
    orphans: Sequence[str] = (),
    size: int = 0,
) -> None:
    print_json(
        "gc/1",
        {
            "dryRun": dry_run,
            "collected": [
                entry_value(each.entry)
                | {"layers": each.layers, "flatImage": each.flat, "bytes": each.size}
                for each in report.released
            ],
            "kept": [entry_value(each.entry) | {"why": each.why} for each in report.kept],
            "layers": report.layers,
            "flatImages": report.flat_images,
            "bytes": report.size + size,
            "orphans": list(orphans),
            "waiting": report.waiting,
            "thinImages": [asdict(deleted) for deleted in thin],
        },
    )


def _print_summary(report: Report, dry_run: bool, quiet: bool) -> None:
    for each in report.kept:
        echo(f"kept: {each.entry.name}: {each.why}", err=True)
    if quiet:
        return
    would = "would be collected" if dry_run else "collected"
    echo(
        f"{plural(len(report.released), 'image')} {would}: {plural(report.layers, 'layer')}, "
        f"{plural(report.flat_images, 'flat image')}, {human_size(report.size)}; "
        f"{report.waiting} still scheduled"
        + (f", {len(report.kept)} kept because their records are uncertain" if report.kept else "")
    )
