"""What hosts record in the tables: attempts, heartbeats, schedules, the history."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from dbos import DBOS

from publisher.service.configuration import (
    ListConfiguration,
    RepositoryConfiguration,
    ServiceConfiguration,
)
from publisher.service.jobs import hosts as hosts_module
from publisher.service.jobs.database import JOBS, connect, create_tables
from publisher.service.jobs.hosts import Hosts
from publisher.service.jobs.model import (
    Job,
    JobFilter,
    JobKind,
    JobPage,
    JobRequest,
    JobState,
    JobsUnavailable,
    Submission,
)
from publisher.service.jobs.schedule import Scheduler
from publisher.service.jobs.store import StoredJobs
from publisher.service.jobs.worker import WorkerStore
from publisher.service.login.tokens import Tokens

MOMENT = datetime(2026, 11, 26, 10, 0, 30, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    found = connect(f"sqlite:///{tmp_path}/jobs.sqlite")
    create_tables(found)
    yield found
    found.dispose()


def add(engine: sa.Engine, job_id: str, work: str, **more: object) -> None:
    row = {
        "id": job_id,
        "work": work,
        "kind": "gc",
        "repository": "r",
        "subject": "",
        "arguments": "[]",
        "requested_by": "",
        "reason": "",
        "state": "queued",
        "created": 0,
        "host": "",
        "error": "",
        "attempt": 0,
        **more,
    }
    with engine.begin() as connection:
        connection.execute(sa.insert(JOBS).values(row))


def test_an_attempt_of_a_host_that_was_thought_lost_changes_nothing(engine: sa.Engine) -> None:
    add(engine, "1", "work")
    first, second = WorkerStore(engine, "a"), WorkerStore(engine, "b")
    jobs = StoredJobs(engine, 10)
    earlier = first.begin("1")
    assert earlier is not None and first.add_events(earlier, 0, [{"message": "a"}])
    current = second.begin("1")
    assert current is not None and current.number == 2
    assert not first.add_events(earlier, 1, [{"message": "late"}])
    assert first.is_cancelled(earlier) and not second.is_cancelled(current)
    first.finish(earlier, 0, "", ended=False)
    assert jobs.get("1").state is JobState.RUNNING
    assert second.last_event(current) == 1
    assert second.add_events(current, 1, [{"message": "b"}])
    assert second.add_events(current, 1, [{"message": "b"}])  # its end was not reported
    second.finish(current, 3, "", ended=False)
    ended = jobs.get("1")
    assert (ended.state, ended.exit_code, ended.host) == (JobState.FAILED, 3, "b")
    assert second.begin("1") is None
    assert [each.value["message"] for each in jobs.events("1")] == ["a", "b"]


def test_a_cancelled_job_does_not_begin_again_when_its_host_is_lost(engine: sa.Engine) -> None:
    add(engine, "1", "work")
    host = WorkerStore(engine, "a")
    attempt = host.begin("1")
    assert attempt is not None
    StoredJobs(engine, 10).cancel("1", "user")
    assert host.is_cancelled(attempt)
    assert WorkerStore(engine, "b").begin("1") is None
    assert StoredJobs(engine, 10).get("1").error == "cancelled by user"


def test_the_database_refuses_to_queue_the_same_work_twice(engine: sa.Engine) -> None:
    add(engine, "1", "work", state="running")
    add(engine, "2", "work")
    with pytest.raises(sa.exc.IntegrityError):
        add(engine, "3", "work")


def test_jobs_are_listed_in_pages_and_by_filters(engine: sa.Engine) -> None:
    for number in range(5):
        add(engine, str(number), str(number), kind="gc" if number % 2 else "verify")
    jobs = StoredJobs(engine, 10)
    page = jobs.list(limit=2)
    assert [each.id for each in page.jobs] == ["4", "3"] and page.following == "3"
    assert [each.id for each in jobs.list(after="1").jobs] == ["0"]
    chosen = JobFilter(frozenset({"r"}), frozenset({JobKind.GC}), frozenset({JobState.QUEUED}))
    assert [each.id for each in jobs.list(chosen).jobs] == ["3", "1"]
    assert jobs.list(JobFilter(subject="x")) == JobPage(())


def test_readers_of_sqlite_do_not_wait_for_writers_and_a_commit_syncs_once(
    engine: sa.Engine,
) -> None:
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_full_database_is_reported_as_full(engine: sa.Engine) -> None:
    host = WorkerStore(engine, "a")
    add(engine, "1", "work")
    attempt = host.begin("1")
    assert attempt is not None

    @sa.event.listens_for(engine, "connect")
    def limit(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # not less than it has

    engine.dispose()
    with pytest.raises(JobsUnavailable) as caught:
        for number in range(1000):
            host.add_events(attempt, number, [{"message": "m" * 4000}])
    assert "full" in caught.value.why
    assert caught.value.hint == "free space for the database of jobs"
    assert StoredJobs(engine, 10).get("1").state is JobState.RUNNING


def test_a_damaged_sqlite_file_is_reported_with_what_helps(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"damaged " * 1000)
    with pytest.raises(JobsUnavailable) as caught:
        create_tables(connect(f"sqlite:///{tmp_path}/jobs.sqlite"))
    assert "not a database" in caught.value.why
    assert caught.value.hint.startswith("end the service, and restore its SQLite file")


def test_a_database_that_cannot_be_reached_is_reported_without_its_password() -> None:
    jobs = StoredJobs(connect("postgresql://user:hidden@127.0.0.1:1/d"), 10)
    for call in (lambda: jobs.get("1"), lambda: jobs.submit(JobRequest(JobKind.GC, "r"))):
        with pytest.raises(JobsUnavailable) as caught:
            call()
        assert "hidden" not in str(caught.value)


class Clock:
    """A monotonic clock in place of the one of the machine."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_host_whose_count_does_not_change_is_lost_and_one_that_left_at_once(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(hosts_module, "time", clock)
    own, other = Hosts(engine, "a", "A", 30), Hosts(engine, "b", "B", 30)
    assert own.beat() == [] and other.beat() == []
    for _ in range(7):
        clock.now += 5
        assert own.beat() == []
    clock.now += 5
    assert own.beat() == ["b"]
    clock.now += 1000  # the database was away: nothing is known about any host
    assert own.beat() == []
    other.beat()
    clock.now += 5
    assert own.beat() == []
    other.leave()
    assert own.beat() == ["b"]
    own.forget("b")
    assert own.beat() == [] and other.beat() == []


class Submitted:
    """Jobs that are only noted."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    def submit(self, request: JobRequest) -> Submission:
        self.subjects.append(request.subject)
        job = Job("1", request, JobState.QUEUED, MOMENT)
        return Submission(job, is_new=True)


def test_a_schedule_submits_each_time_once_for_all_hosts(engine: sa.Engine) -> None:
    lists = (ListConfiguration("five", "/f", "*/5 * * * *"), ListConfiguration("never", "/n"))
    repository = RepositoryConfiguration("r", "dir:/r", lists)
    configuration = ServiceConfiguration("c", Path("/s"), "", (repository,))
    noted = Submitted()
    one, two = Scheduler(engine, noted), Scheduler(engine, noted)  # type: ignore[arg-type]
    for minutes, expected in ((0, 0), (1, 0), (5, 1), (6, 1), (20, 2), (3, 2), (5, 2), (25, 3)):
        moment = MOMENT + timedelta(minutes=minutes)  # a clock may jump, also backwards
        one.submit_due(configuration, moment)
        two.submit_due(configuration, moment)
        assert len(noted.subjects) == expected, minutes
    assert set(noted.subjects) == {"five"}


def test_schedules_continue_after_a_clock_was_years_ahead(engine: sa.Engine) -> None:
    repository = RepositoryConfiguration("r", "dir:/r", (ListConfiguration("l", "/l", "@daily"),))
    configuration = ServiceConfiguration("c", Path("/s"), "", (repository,))
    noted = Submitted()
    one = Scheduler(engine, noted)  # type: ignore[arg-type]
    for days, expected in ((0, 0), (3000, 1), (0, 1), (1, 2), (2, 3)):
        one.submit_due(configuration, MOMENT + timedelta(days=days))
        assert len(noted.subjects) == expected, days


def test_jobs_are_listed_by_project_and_tables_of_earlier_releases_get_the_column(
    tmp_path: Path,
) -> None:
    path = tmp_path / "older.sqlite"
    older = connect(f"sqlite:///{path}")
    create_tables(older)
    add(older, "1", "w")
    with older.begin() as connection:
        connection.execute(sa.text("DROP INDEX publisher_jobs_of_project"))
        connection.execute(sa.text("ALTER TABLE publisher_jobs DROP COLUMN project"))
        connection.execute(sa.text("ALTER TABLE publisher_tokens DROP COLUMN person"))
        connection.execute(sa.text("DROP TABLE publisher_lists"))
    older.dispose()
    for _ in range(2):
        engine = connect(f"sqlite:///{path}")
        create_tables(engine)
        jobs = StoredJobs(engine, 10)
        assert [each.request.project for each in jobs.list().jobs] == [""]
        assert Tokens(engine).list() == []
        engine.dispose()
    add(engine, "2", "v", project="astro")
    add(engine, "3", "u", project="bio")
    for projects, found in (
        (None, ["3", "2", "1"]),
        (frozenset(), []),
        (frozenset({"astro"}), ["2"]),
        (frozenset({"astro", "bio"}), ["3", "2"]),
    ):
        listed = jobs.list(JobFilter(projects=projects)).jobs
        assert [each.id for each in listed] == found
    engine.dispose()


def test_ingests_of_different_lists_have_different_partitions_and_those_of_one_list_the_same(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/lanes.sqlite"
    engine = connect(url)
    create_tables(engine)
    DBOS.migrate(url)
    jobs = StoredJobs(engine, 1000)
    jobs.allow_lanes({"gateway": 4}, limited={"astro"})
    requests = [JobRequest(JobKind.INGEST_LIST, "gateway", f"l{n}") for n in range(20)]
    requests += [JobRequest(JobKind.INGEST_LIST, "gateway", "l0", ("--retry-failed",))]
    requests += [JobRequest(JobKind.GC, "gateway"), JobRequest(JobKind.INGEST_LIST, "one", "l1")]
    for project in ("astro", "bio"):  # the first one has a quota
        lists = [JobRequest(JobKind.INGEST_LIST, "gateway", f"l{n}") for n in range(20)]
        requests += [replace(each, project=project) for each in lists]
    requests += [JobRequest(JobKind.INGEST_IMAGE, "gateway", "a/b:1", project="astro")]
    ids = [jobs.submit(each).job.id for each in requests]
    query = sa.text("SELECT workflow_uuid, queue_partition_key FROM workflow_status")
    with engine.connect() as connection:
        lanes = {row[0]: row[1] for row in connection.execute(query)}
    found = [lanes[each] for each in ids]
    assert set(found[:20]) == {"gateway", "gateway/1", "gateway/2", "gateway/3"}
    assert found[20] == found[0] and found[21:23] == ["gateway", "one"]
    assert len({*found[23:43], found[63]}) == 1 and found[43:63] == found[:20]
    engine.dispose()
