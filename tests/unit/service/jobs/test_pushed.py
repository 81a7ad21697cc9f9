"""Jobs for pushed images are joined while they wait."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from dbos import DBOS

from publisher.service.jobs.database import connect, create_tables
from publisher.service.jobs.model import Job, JobFilter, JobKind, JobRequest, JobState
from publisher.service.jobs.pushed import MOST_IMAGES, PushedImages
from publisher.service.jobs.store import StoredJobs
from publisher.service.jobs.worker import WorkerStore

REQUEST = JobRequest(JobKind.INGEST_LIST, "images", "astro", requested_by="webhook a")
QUEUED = JobFilter(states=frozenset({JobState.QUEUED}))


@dataclass(frozen=True, slots=True)
class Stored:
    pushed: PushedImages
    jobs: StoredJobs
    worker: WorkerStore

    def queued(self) -> list[Job]:
        return list(self.jobs.list(QUEUED).jobs)


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    engine = connect(url)
    create_tables(engine)
    DBOS.migrate(url)
    jobs = StoredJobs(engine, 100)
    return Stored(PushedImages(engine, jobs), jobs, WorkerStore(engine, "host"))


def test_images_join_the_queued_job_of_their_list_until_it_begins(stored: Stored) -> None:
    first = stored.pushed.submit(REQUEST, ["a:1", "a:2"])
    joined = stored.pushed.submit(REQUEST, ["a:2", "b:1"])
    again = stored.pushed.submit(REQUEST, ["b:1"])
    assert (first.is_new, joined.is_new, again.is_new) == (True, False, False)
    [job] = stored.queued()
    assert job.id == first.job.id == joined.job.id == again.job.id
    arguments = ("--retry-failed", "--only=a:1", "--only=a:2", "--only=b:1")
    assert job.request.arguments == joined.job.request.arguments == arguments
    assert stored.worker.begin(job.id) is not None
    later = stored.pushed.submit(REQUEST, ["b:1"])
    assert later.is_new and later.job.request.arguments == ("--retry-failed", "--only=b:1")
    assert stored.jobs.get(job.id).request.arguments == arguments
    # What is queued now is the same work as what a job may be joined to.
    assert stored.jobs.submit(later.job.request).job.id == later.job.id


def test_other_jobs_and_lists_are_not_changed(stored: Stored) -> None:
    whole = stored.jobs.submit(REQUEST).job
    other = stored.pushed.submit(JobRequest(JobKind.INGEST_LIST, "images", "bio"), ["a:1"]).job
    retried = JobRequest(JobKind.INGEST_LIST, "images", "astro", ("--retry-failed", "--changed"))
    by_hand = stored.jobs.submit(retried).job
    pushed = stored.pushed.submit(REQUEST, ["a:1"]).job
    assert len({whole.id, other.id, by_hand.id, pushed.id}) == 4
    assert stored.jobs.get(whole.id).request.arguments == ()
    assert stored.jobs.get(by_hand.id).request == retried


def test_many_images_become_one_job_for_the_whole_list(stored: Stored) -> None:
    for number in range(0, MOST_IMAGES + 10, 70):
        stored.pushed.submit(REQUEST, [f"a:{number + each}" for each in range(70)])
    [job] = stored.queued()
    assert job.request.arguments == ("--retry-failed",)
    assert stored.pushed.submit(REQUEST, ["b:1"]).job.request.arguments == ("--retry-failed",)
    assert len(stored.queued()) == 1


def test_pushes_at_the_same_time_become_one_job_and_lose_no_image(stored: Stored) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: stored.pushed.submit(REQUEST, [f"a:{n}"]), range(40)))
    [job] = stored.queued()
    assert set(job.request.arguments[1:]) == {f"--only=a:{number}" for number in range(40)}
