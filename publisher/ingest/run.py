"""Publish what wishes request: the use case behind `publisher ingest`.

For each image of a wish (image.py), the reference is resolved at its source. If that image is
published, there is nothing to do. Otherwise manifest, config and the missing layers are fetched,
all layers are merged into a flat image, and everything becomes visible in one transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

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
from publisher.repository import Repository, RepositoryBusy
from publisher.repository.descriptors import jobs_within_limit
from publisher.repository.records import RecordSet
from publisher.sources.open import Sources
from publisher.state import Cause
from publisher.state.store import State
from publisher.times import utc_now
from publisher.wishlist.model import Request
from publisher.workers.pool import Workers


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
    now: Callable[[], datetime] = utc_now,
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
    stop = stop or threading.Event()
    policy = policy or Policy()
    admission = admission or Admission()
    selection = selection or Selection()
    jobs = jobs_within_limit(jobs)
    steps = StepTimes(LoggedProgress(progress or Silent()))
    notices = Notices(repository.url, steps)
    rules = rules_digest(admission, policy.limits, quota)
    _convert_schedule(repository, stop)
    fetcher = LayerFetcher(
        repository,
        policy,
        jobs,
        steps,
        stop,
        notices.refused,
        workers or Workers(0),
        tar_split=any("podman" in request.wish.outputs for request in requests),
    )
    run = Run(
        repository=repository,
        sources=sources,
        layers=fetcher,
        limits=policy.limits,
        progress=steps,
        stop=stop,
        now=now,
        thin=ThinPushes(repository, sources, now),
        notices=notices,
        admission=admission,
        memory=Memory(state, now, retry_failed, selection.changed, rules),
        selection=selection,
        commits=Commits(repository, group),
        quota=quota,
    )
    wishes = _selected_wishes(run, requests)

    def ended_by_error(outcomes: list[Outcome], unfinished: list[Request]) -> None:
        run.cut_short = False  # the run was not interrupted: it ends by an error
        ended(_report(run, began, outcomes, unfinished))

    try:
        results = for_all_images(
            wishes,
            sources,
            jobs=jobs,
            admission=admission,
            stop=stop,
            on_stop=sources.close,  # a registry may have asked for a pause of minutes
            ended=ended_by_error,
        )
    finally:
        fetcher.close()
    run.cut_short = run.cut_short or not results.complete
    return _report(run, began, _with_unrecorded_pushes(results.items, run.thin.record()))


def _selected_wishes(run: Run, requests: Sequence[Request]) -> Iterable[WishIngest]:
    """Return the wishes that the run works on, and report how many there are."""
    # If they are all, each is made when it is begun: a list may be long.
    wishes = (WishIngest(run, request) for request in requests)
    if not run.selection.is_partial:
        run.progress.run_started(len(requests))
        return wishes
    selected = [wish for wish in wishes if not wish.is_left_out()]
    run.progress.run_started(len(selected))
    return selected


def _report(
    run: Run, began: float, outcomes: Iterable[Outcome], unfinished: Iterable[Request] = ()
) -> Report:
    """Return what the run did since `began`, by the monotonic clock in seconds."""
    return Report(
        tuple(outcomes),
        time.monotonic() - began,
        run.cut_short,
        run.progress.seconds,
        run.selection.is_partial,
        tuple(run.recovered),
        tuple(unfinished),
    )


def _with_unrecorded_pushes(
    outcomes: Iterable[Outcome], unrecorded: Mapping[str, str]
) -> Iterator[Outcome]:
    """Add why the push of a thin image could not be recorded, which `unrecorded` has by image."""
    for outcome in outcomes:
        why = unrecorded.get(outcome.name)
        if why and not outcome.error:
            text = "its thin image was pushed, but not recorded; the next run pushes it again"
            yield replace(outcome, error=f"{text}: {why}", cause=Cause.REPOSITORY)
        else:
            yield outcome


def _convert_schedule(repository: Repository, stop: threading.Event) -> None:
    """Convert the schedule of an earlier release, which otherwise is read again for each image."""
    if not RecordSet(repository).schedule.convert():
        return
    purpose = "conversion of the remove schedule"
    try:
        with repository.transaction(purpose) as transaction, transaction.exclusive():
            records = RecordSet(repository)
            if records.schedule.convert():
                records.write(transaction)
                transaction.commit()
    except RepositoryBusy:
        if not stop.is_set():
            raise  # otherwise `stop` has ended the wait, and no image is begun
