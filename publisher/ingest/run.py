"""Publish what wishes request: the use case behind `publisher ingest`.

For each image of a wish (image.py), the reference is resolved at its source. If that image is
published, there is nothing to do. Otherwise manifest, config and the missing layers are fetched,
all layers are merged into a flat image, and everything becomes visible in one transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime

from publisher.ingest.admission import Admission
from publisher.ingest.image import Run
from publisher.ingest.layers import LayerFetcher
from publisher.ingest.notices import Notices
from publisher.ingest.report import Outcome, Progress, Report, Silent
from publisher.ingest.step_times import StepTimes
from publisher.ingest.thin_push import ThinPushes
from publisher.ingest.wish import ingest_wish
from publisher.layers.policy import Policy
from publisher.repository import Repository
from publisher.repository.descriptors import jobs_within_limit
from publisher.repository.records import RecordSet
from publisher.sources.open import Sources
from publisher.wishlist.model import Request

_WAKE_SECONDS = 0.2
"""Seconds between checks of `stop`, which a signal handler sets."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


def ingest(
    requests: Sequence[Request],
    repository: Repository,
    sources: Sources,
    *,
    jobs: int = 4,
    policy: Policy | None = None,
    admission: Admission | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    now: Callable[[], datetime] = _utc_now,
) -> Report:
    """Publish every requested image; the failure of one does not affect the others.

    Args:
        requests: The wishes, each with its list.
        repository: The repository, opened for writing.
        sources: Where the images come from.
        jobs: How many images, and as many layers, are processed at a time; fewer if the limit of
            open files (`ulimit -n`) does not allow them.
        policy: What of an image may be published, and how large it may be.
        admission: Which wishes and images may be published; by default all.
        progress: Receives what happens, from several threads.
        stop: Once it is set no other image is begun, downloads end at their next chunk, `sources`
            are closed, and the report is marked as interrupted.
        now: The clock.

    Raises:
        RepositoryError: The repository itself cannot be used.
        UnsupportedRecord: Another program, or a later release, wrote the remove schedule.
    """
    began = time.monotonic()
    steps = StepTimes(progress or Silent())
    progress = steps
    stop = stop or threading.Event()
    policy = policy or Policy()
    jobs = jobs_within_limit(jobs)
    notices = Notices(repository.url, progress)
    _convert_schedule(repository)
    for_podman = any("podman" in request.wish.outputs for request in requests)
    fetcher = LayerFetcher(
        repository, policy, jobs, progress, stop, notices.refused, tar_split=for_podman
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
        admission or Admission(),
    )
    work = _Work(requests)
    progress.run_started(len(requests))
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="image")
    try:
        # One future per worker: one per wish would take most of the memory for a long list.
        workers = [pool.submit(_process, run, work) for _ in range(min(jobs, len(requests)))]
        _wait_for(workers, stop, sources)
        for worker in workers:
            worker.result()
    finally:
        stop.set()
        pool.shutdown()
        fetcher.close()
    unrecorded = thin.record()
    # A wish that was not begun has no outcome.
    outcomes = [
        _with_unrecorded_push(outcome, unrecorded.get(outcome.name, ""))
        for done in work.outcomes
        if done is not None
        for outcome in done
    ]
    cut_short = run.cut_short or None in work.outcomes
    return Report(tuple(outcomes), time.monotonic() - began, cut_short, steps.seconds)


def _with_unrecorded_push(outcome: Outcome, why: str) -> Outcome:
    """Add why the push of an image's thin image could not be recorded, unless `why` is empty."""
    if not why or outcome.error:
        return outcome
    text = f"its thin image was pushed, but not recorded; the next run pushes it again: {why}"
    return replace(outcome, error=text)


class _Work:
    """The requests that are not begun yet, and the outcomes of the others in the same order."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.outcomes: list[list[Outcome] | None] = [None] * len(requests)
        self._left = iter(enumerate(requests))
        self._lock = threading.Lock()

    def take(self) -> tuple[int, Request] | None:
        """Return the next request with its place, or None at the end."""
        with self._lock:
            return next(self._left, None)


def _process(run: Run, work: _Work) -> None:
    """Process requests until none is left, or the run is to stop."""
    while not run.stop.is_set() and (taken := work.take()) is not None:
        number, request = taken
        work.outcomes[number] = ingest_wish(run, request)
        run.progress.request_done()


def _wait_for(workers: Collection[Future[None]], stop: threading.Event, sources: Sources) -> None:
    """Wait for all workers; on `stop`, or if the repository cannot be used, begin no other wish."""
    pending = set(workers)
    while pending:
        done, pending = wait(pending, timeout=_WAKE_SECONDS, return_when=FIRST_EXCEPTION)
        if stop.is_set() or any(worker.exception() is not None for worker in done):
            stop.set()
            sources.close()  # a registry may have asked for a pause of minutes


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
