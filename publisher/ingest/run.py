"""Publish what wishes request: the use case behind `publisher ingest`.

For each image of a wish (image.py), the reference is resolved at its source. If that image is
published, there is nothing to do. Otherwise manifest, config and the missing layers are fetched,
all layers are merged into a flat image, and everything becomes visible in one transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from publisher.ingest.admission import Admission, RunQuota
from publisher.ingest.group import DEFAULT_GROUP, Commits
from publisher.ingest.layers import LayerFetcher
from publisher.ingest.logged_progress import LoggedProgress
from publisher.ingest.memory import Memory, rules_digest
from publisher.ingest.notices import Notices
from publisher.ingest.report import Outcome, Progress, Report, Silent
from publisher.ingest.selection import Selection
from publisher.ingest.shared import Run
from publisher.ingest.step_times import StepTimes
from publisher.ingest.thin_pushes import ThinPushes
from publisher.ingest.wish import WishIngest
from publisher.ingest.work import for_all_images
from publisher.layers.policy import Policy
from publisher.repository import Repository
from publisher.repository.descriptors import jobs_within_limit
from publisher.repository.records import RecordSet
from publisher.sources.open import Sources
from publisher.state import Cause
from publisher.state.store import State
from publisher.wishlist.model import Request
from publisher.workers.pool import Workers


def _utc_now() -> datetime:
    return datetime.now(UTC)


def ingest(
    requests: Sequence[Request],
    repository: Repository,
    sources: Sources,
    *,
    jobs: int = 4,
    group: int = DEFAULT_GROUP,
    workers: Workers | None = None,
    policy: Policy | None = None,
    admission: Admission | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    state: State | None = None,
    retry_failed: bool = False,
    selection: Selection | None = None,
    quota: RunQuota | None = None,
    now: Callable[[], datetime] = _utc_now,
    ended: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Publish every requested image; the failure of one does not affect the others.

    Args:
        requests: The wishes, each with its list.
        repository: The repository, opened for writing.
        sources: Where the images come from.
        jobs: How many images, and as many layers, are processed at a time; fewer if the limit of
            open files (`ulimit -n`) does not allow them.
        group: How many images one commit may publish, of those that are ready at the same time.
        workers: Unpacks the layers; by default this process does.
        policy: What of an image may be published, and how large it may be.
        admission: Which wishes and images may be published; by default all.
        progress: Receives what happens, from several threads.
        stop: Once it is set no other image is begun, downloads end at their next chunk, `sources`
            are closed, and the report is marked as interrupted.
        state: What earlier runs remember; by default nothing is remembered.
        retry_failed: Try images again although they failed shortly before.
        selection: The wishes and images to be worked on; by default all. The report then has no
            others.
        quota: How much the images may use; by default any amount.
        now: The clock.
        ended: Called with what was done until then, if a RepositoryError ends the run.

    Raises:
        RepositoryError: The repository itself cannot be used.
        UnsupportedRecord: Another program, or a later release, wrote the remove schedule.
    """
    began = time.monotonic()
    steps = StepTimes(LoggedProgress(progress or Silent()))
    progress = steps
    stop = stop or threading.Event()
    policy = policy or Policy()
    admission = admission or Admission()
    selection = selection or Selection()
    jobs = jobs_within_limit(jobs)
    notices = Notices(repository.url, progress)
    _convert_schedule(repository)
    for_podman = any("podman" in request.wish.outputs for request in requests)
    fetcher = LayerFetcher(
        repository,
        policy,
        jobs,
        progress,
        stop,
        notices.refused,
        workers or Workers(0),
        tar_split=for_podman,
    )
    thin = ThinPushes(repository, sources, now)
    run = Run(
        repository,
        sources,
        fetcher,
        policy.limits,
        progress,
        stop,
        now,
        thin,
        notices,
        admission,
        Memory(
            state,
            now,
            retry_failed,
            selection.changed,
            rules_digest(admission, policy.limits, quota),
        ),
        selection,
        Commits(repository, group),
        quota,
    )
    wishes: Iterable[WishIngest] = (WishIngest(run, request) for request in requests)
    if selection.is_partial:
        wishes = selected = [wish for wish in wishes if not wish.is_left_out()]
        progress.run_started(len(selected))
    else:
        progress.run_started(len(requests))

    def report(outcomes: Iterable[Outcome], unfinished: Sequence[Request] = ()) -> Report:
        return Report(
            tuple(outcomes),
            time.monotonic() - began,
            run.cut_short,
            steps.seconds,
            selection.is_partial,
            tuple(run.recovered),
            tuple(unfinished),
        )

    def report_unfinished(outcomes: list[Outcome], unfinished: list[Request]) -> None:
        run.cut_short = False  # the run was not interrupted: it ends by an error
        ended(report(outcomes, unfinished))

    try:
        results = for_all_images(
            wishes,
            sources,
            jobs=jobs,
            admission=run.admission,
            stop=stop,
            on_stop=sources.close,  # a registry may have asked for a pause of minutes
            ended=report_unfinished,
        )
    finally:
        fetcher.close()
    unrecorded = thin.record()
    run.cut_short = run.cut_short or not results.complete
    return report(
        _with_unrecorded_push(outcome, unrecorded.get(outcome.name, ""))
        for outcome in results.items
    )


def _with_unrecorded_push(outcome: Outcome, why: str) -> Outcome:
    """Add why the push of an image's thin image could not be recorded, unless `why` is empty."""
    if not why or outcome.error:
        return outcome
    text = f"its thin image was pushed, but not recorded; the next run pushes it again: {why}"
    return replace(outcome, error=text, cause=Cause.REPOSITORY)


def _convert_schedule(repository: Repository) -> None:
    """Convert the schedule of an earlier release, which otherwise is read again for each image."""
    if not RecordSet(repository).convert_schedule():
        return
    purpose = "conversion of the remove schedule"
    with repository.transaction(purpose) as transaction, transaction.exclusive():
        records = RecordSet(repository)
        if records.convert_schedule():
            records.write(transaction)
            transaction.commit()
