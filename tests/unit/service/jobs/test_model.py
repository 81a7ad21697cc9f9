"""Jobs as values."""

from __future__ import annotations

from publisher.service.jobs.model import JobKind, JobRequest, JobState


def test_requests_for_the_same_work_have_the_same_key_whatever_requested_them() -> None:
    one = JobRequest(JobKind.INGEST_LIST, "images", "astro", requested_by="a", reason="webhook")
    assert one.key == JobRequest(JobKind.INGEST_LIST, "images", "astro").key
    others = (
        JobRequest(JobKind.PLAN, "images", "astro"),
        JobRequest(JobKind.INGEST_LIST, "other", "astro"),
        JobRequest(JobKind.INGEST_LIST, "images", "bio"),
        JobRequest(JobKind.INGEST_LIST, "images", "astro", ("--force",)),
        JobRequest(JobKind.INGEST_LIST, "images", "astro", project="astro"),
    )
    assert len({one.key, *(each.key for each in others)}) == 6


def test_jobs_that_have_ended_do_not_change() -> None:
    final = {state for state in JobState if state.is_final}
    assert final == {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    assert {kind for kind in JobKind if kind.has_list} == {JobKind.INGEST_LIST, JobKind.PLAN}
