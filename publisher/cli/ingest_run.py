"""A run of `ingest` or `ingest-image` in one repository: its options, progress and signals."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from types import FrameType

import click

from publisher.cli.failures import UsageError
from publisher.cli.logs import is_shown
from publisher.cli.progress import Display, PlainProgress, QuietProgress
from publisher.cli.quotas import QuotaOptions
from publisher.cli.recorded_run import Result
from publisher.cli.rendering import message
from publisher.cli.repositories import open_repository
from publisher.cli.sources import open_sources
from publisher.cli.workers import open_workers
from publisher.ingest.admission import Admission
from publisher.ingest.report import Report, Status
from publisher.ingest.run import ingest
from publisher.ingest.selection import Selection
from publisher.ingest.stopping import check_stop
from publisher.lazy import dataclass
from publisher.repository.descriptors import raise_limit
from publisher.repository.settings import load_policy
from publisher.state.store import State
from publisher.wishlist.model import Request

verify_option = click.option(
    "--verify-publish",
    is_flag=True,
    help="Read everything that is published back through the mount (CVMFS repositories).",
)


no_progress_option = click.option(
    "--no-progress",
    is_flag=True,
    help="Print results only, not the steps towards them: one line for a run without changes.",
)


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """The options of `ingest` and `ingest-image`. `wait` is in seconds."""

    jobs: int
    workers: int | None
    wait: float
    verify_publish: bool
    progress: bool
    sources: Mapping[str, str | None]
    admission: Admission
    quota: QuotaOptions | None
    retry_failed: bool
    selection: Selection = field(default_factory=Selection)
    group: int = 1


def publish(
    requests: Sequence[Request],
    url: str | None,
    options: IngestOptions,
    state: State,
    ended: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Publish requests into the repository at `url`; see `publisher.ingest.run.ingest`.

    The first SIGINT or SIGTERM ends it in order.
    """
    stop = threading.Event()
    raise_limit()
    # No process is started yet.
    workers = open_workers(options.workers, keep_reading=lambda: check_stop(stop))
    repository = open_repository(
        url,
        writable=True,
        may_be_new=True,
        wait=options.wait,
        verify=options.verify_publish,
        workers=workers,
        stop=stop,
    )
    try:
        with (
            workers,
            open_sources(options.sources) as sources,
            _progress_for(not options.progress) as progress,
            _stopping_on_signals(stop, progress),
        ):
            return ingest(
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


def result_of(report: Report, lists: tuple[str, ...], codes: Mapping[str, int]) -> Result:
    """Return what a run did; `codes` are the exit codes of `lists` that differ from its own."""
    counts = {str(status): count for status in Status if (count := report.count(status))}
    fetched = sum(outcome.bytes_fetched for outcome in report.outcomes)
    return Result(counts, lists, fetched, report.steps, codes)


def no_dry_run(command: str, instead: str, *arguments: str) -> UsageError:
    """Return the error for --dry-run, which names the command that shows what would be done."""
    return UsageError(
        f"cannot use --dry-run with {command}",
        why=f"publisher {instead} shows what it would do",
        hint=shlex.join(("publisher", instead, *arguments)),
    )


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
