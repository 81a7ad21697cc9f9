"""The service as processes: jobs run once, whichever hosts and databases die meanwhile."""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS

from publisher.service.access import Verb
from publisher.service.audit import Audit
from publisher.service.configuration import (
    History,
    ListConfiguration,
    RepositoryConfiguration,
)
from publisher.service.jobs.database import connect, create_tables, driver_url
from publisher.service.jobs.history import remove_old_jobs
from publisher.service.jobs.lists import ConfiguredLists
from publisher.service.jobs.model import JobFilter, JobKind, JobRequest, JobState, NoSuchJob
from publisher.service.jobs.pushed import PushedImages
from publisher.service.jobs.store import StoredJobs
from publisher.service.jobs.worker import WorkerStore
from publisher.service.login.tokens import Tokens
from tests.postgresql import postgresql
from tests.service import (
    AskedJobs,
    HostProcess,
    eventually,
    running_host,
    write_lists,
)

pytestmark = pytest.mark.system


def test_one_host_runs_cancels_and_recovers_jobs_and_reloads_its_configuration(
    tmp_path: Path,
) -> None:
    lists = write_lists(tmp_path, lists=1, images=2)
    repository = {
        "url": f"dir:{tmp_path}/images",
        "lists": {"list0": {"source": str(lists["list0"])}},
    }
    other = {"url": f"dir:{tmp_path}/other"}
    host = HostProcess(
        "serve",
        tmp_path / "a",
        {"repositories": {"images": repository, "other": other}, "limits": {"host-timeout": "3s"}},
    )
    with running_host(host):
        eventually(lambda: host.status("/readyz") == 200)
        asked = AskedJobs(f"sqlite:///{tmp_path}/a/state/jobs.sqlite")
        lock = tmp_path / "lock"
        os.mkfifo(lock)  # a list that is not readable yet: its job waits

        published = asked.end_of(asked.submit(JobKind.INGEST_LIST, "images", "list0"))
        texts = asked.messages(published)
        assert (published.state, published.exit_code) == (JobState.SUCCEEDED, 0), texts
        assert published.started is not None and published.ended is not None
        assert "2 published in" in texts[-2] and texts[-1] == "the command ends with 0"
        assert "hidden" not in "".join(texts)

        # The repository named second has not been created: the job fails, and is not repeated.
        failed = asked.end_of(asked.submit(JobKind.GC, "other"))
        assert (failed.state, failed.exit_code, failed.attempt) == (JobState.FAILED, 3, 1)

        # A configuration with errors is not used; one without is.
        wrong = {"slow": {"source": 1, "project": "absent"}}
        host.write(repositories={"images": {**repository, "lists": wrong}})
        host.process.send_signal(signal.SIGHUP)
        eventually(lambda: "the former configuration stays in use" in host.log.read_text())
        [line] = [text for text in host.log.read_text().splitlines() if "former" in text]
        assert line.count("error: ") == 2 and "; " in line and r"\n" not in line
        host.write(
            repositories={"images": {**repository, "lists": {"slow": {"source": str(lock)}}}}
        )
        host.process.send_signal(signal.SIGHUP)
        eventually(lambda: "reloaded" in host.log.read_text())
        absent = asked.end_of(asked.submit(JobKind.GC, "other"))
        assert "the configuration has no repository other" in absent.error

        # While one job of a repository runs, the next one waits, and is not queued twice.
        running = asked.submit(JobKind.INGEST_LIST, "images", "slow")
        eventually(lambda: asked.jobs.get(running.id).state is JobState.RUNNING)
        waiting = asked.submit(JobKind.INGEST_LIST, "images", "slow")
        assert waiting.id != running.id
        assert asked.submit(JobKind.INGEST_LIST, "images", "slow").id == waiting.id

        # A job that the engine took for this host, and lost when the database was away, runs.
        forgotten = asked.submit(JobKind.GC, "images")
        take = (
            "UPDATE workflow_status SET status = 'PENDING', executor_id = :host "
            "WHERE workflow_uuid = :job"
        )
        with asked.engine.begin() as connection:
            connection.execute(sa.text(take), {"host": host.name, "job": forgotten.id})
        eventually(lambda: f"job {forgotten.id} did not begin" in host.log.read_text())

        assert asked.jobs.cancel(waiting.id, "user").state is JobState.CANCELLED
        asked.jobs.cancel(running.id, "user")
        cancelled = asked.end_of(running)
        assert (cancelled.state, cancelled.error) == (JobState.CANCELLED, "cancelled by user")
        assert asked.end_of(forgotten).state is JobState.SUCCEEDED

        # A host that is terminated, or killed, continues with its jobs when it is back.
        interrupted = asked.submit(JobKind.INGEST_LIST, "images", "slow")
        eventually(lambda: asked.jobs.get(interrupted.id).state is JobState.RUNNING)
        assert host.stop() == 0
        host.start()
        eventually(lambda: asked.jobs.get(interrupted.id).attempt == 2)
        host.kill()
        lock.unlink()
        lock.write_bytes(lists["list0"].read_bytes())
        host.start()
        recovered = asked.end_of(interrupted)
        assert (recovered.state, recovered.attempt) == (JobState.SUCCEEDED, 3)
        assert "the last one did not end, as its host stopped" in "".join(asked.messages(recovered))

        # Of the history, the newest jobs remain; one of the others reconciled.
        assert remove_old_jobs(asked.engine, asked.jobs, History(jobs=2)) == 6
        kept = asked.jobs.list().jobs
        assert [each.id for each in kept] == [interrupted.id, forgotten.id]
        with pytest.raises(NoSuchJob):
            asked.jobs.events(published.id)
        assert remove_old_jobs(asked.engine, asked.jobs, History(age=timedelta(0))) == 2
        assert host.stop() == 0
        assert f"WARNING: job {failed.id} failed: gc of other: " in host.log.read_text()
        started = (
            r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z (WARNING: |ERROR: |serving |reloaded |the former )"
        )
        for text in host.log.read_text().splitlines():
            assert re.match(started, text), text


def test_tables_of_an_earlier_release_in_postgresql_whichever_hosts_start(tmp_path: Path) -> None:
    """Hosts that start at the same time add what is missing once; all tables are then in use."""
    with postgresql() as database:
        engine = connect(database.url)
        create_tables(engine)
        DBOS.migrate(str(driver_url(database.url)))
        jobs = StoredJobs(engine, 100)
        old = jobs.submit(JobRequest(JobKind.GC, "images")).job
        for _ in range(3):
            with engine.begin() as connection:
                for name in ("audit", "tokens", "sessions", "job_keys", "lists"):
                    connection.execute(sa.text(f"DROP TABLE publisher_{name}"))
                for name in ("state", "repository"):
                    connection.execute(sa.text(f"DROP INDEX publisher_jobs_of_{name}"))
                for name in ("project", "requested_from"):
                    connection.execute(sa.text(f"ALTER TABLE publisher_jobs DROP COLUMN {name}"))
            hosts = [connect(database.url) for _ in range(4)]
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(create_tables, hosts))
            for each in hosts:
                each.dispose()
            assert jobs.list().jobs == (old,)

        list_job = JobRequest(JobKind.INGEST_LIST, "images", "astro", project="astro")
        pushed = [PushedImages(connect(database.url), jobs) for _ in range(2)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: pushed[n % 2].submit(list_job, [f"a:{n}"]), range(30)))
        chosen = JobFilter(projects=frozenset({"astro"}))
        options = [option for job in jobs.list(chosen).jobs for option in job.request.arguments]
        assert {f"--only=a:{n}" for n in range(30)} | {"--retry-failed"} == set(options)

        several = tuple(ListConfiguration(f"l{n}", f"/w/{n}") for n in range(200))
        both = RepositoryConfiguration("images", "dir:/r", several)
        one = RepositoryConfiguration("images", "dir:/r", several[:-1])
        lists = [ConfiguredLists(connect(database.url)) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda each: each.note(both, ()), lists)) == [False] * 4
        assert lists[0].note(one, ()) and lists[1].gone(one, ()) == {"/w/199"}
        lists[1].withdrawn(one, ["/w/199"], ())
        assert not lists[2].note(one, ()) and lists[2].gone(one, ()) == {"/w/199"}
        assert lists[3].note(both, ()) and not lists[3].gone(both, ())

        once = [jobs.submit(JobRequest(JobKind.GC, name), once="key") for name in ("a", "a")]
        assert [each.is_new for each in once] == [True, False]
        audit = Audit(engine)
        audit.add("alice", "127.0.0.1", "POST", "/api/v1/jobs", 202)
        [entry] = audit.list()
        assert (entry.sender, entry.status) == ("alice", 202)
        audit.remove_old()
        tokens, today = Tokens(engine), datetime.now(UTC)
        stored, text = tokens.create(
            "ci", ["astro"], frozenset({Verb.READ}), "alice", today, today + timedelta(days=1)
        )
        assert [each.id for each in tokens.list()] == [stored.id]
        found = tokens.find(text, today)
        assert found is not None and found.projects == ("astro",)
        tokens.revoke(stored.id)
        assert tokens.find(text, today) is None
        indexes = {each["name"] for each in sa.inspect(engine).get_indexes("publisher_jobs")}
        assert {"publisher_jobs_of_state", "publisher_jobs_of_project"} <= indexes
        _check_plans(engine, jobs)
        engine.dispose()


def _check_plans(engine: sa.Engine, jobs: StoredJobs) -> None:
    """With 20,000 jobs, of which half wait, no request reads the whole table."""
    fill = """
        INSERT INTO publisher_jobs (id, work, kind, repository, subject, arguments, requested_by,
            reason, state, created, ended, host, error, attempt, requested_from, project)
        SELECT lpad(n::text, 12, '0'), n::text, 'ingest-list', 'r' || n % 100, 'l' || n, '[]', '',
            '', CASE WHEN n % 2 = 0 THEN 'queued' ELSE 'succeeded' END, now, now, '', '', 0, '',
            'p' || n % 100
        FROM generate_series(1, 20000) AS n,
            CAST(extract(epoch FROM now()) * 1000 AS bigint) AS now"""
    with engine.begin() as connection:
        connection.execute(sa.text(fill))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE"))
    found: list[tuple[str, str]] = []

    def explain(
        connection: sa.Connection, cursor: Any, statement: str, parameters: Any, *_: object
    ) -> None:
        if "publisher_job" in statement and not statement.lstrip().startswith("EXPLAIN"):
            cursor.execute(f"EXPLAIN {statement}", parameters)
            found.append((statement, "\n".join(row[0] for row in cursor.fetchall())))

    sa.event.listen(engine, "before_cursor_execute", explain)
    jobs = StoredJobs(engine, 100_000)
    request = JobRequest(JobKind.INGEST_LIST, "r7", "l7")
    queued = frozenset({JobState.QUEUED})
    for chosen in (
        JobFilter(),
        JobFilter(repositories=frozenset({"r7"})),
        JobFilter(states=frozenset({JobState.FAILED})),
        JobFilter(states=queued),
        JobFilter(projects=frozenset({"p7"})),
        JobFilter(projects=frozenset({"p7", "none"})),
        JobFilter(repositories=frozenset({"r7"}), states=queued, subject="l7"),
    ):
        jobs.list(chosen, after="00000001")
    job = jobs.submit(request, once="plan").job
    assert not jobs.submit(request, once="plan").is_new
    PushedImages(engine, jobs).submit(JobRequest(JobKind.INGEST_LIST, "r7", "l9"), ["a:1"])
    jobs.events(job.id)
    jobs.last_event(job.id)
    host = WorkerStore(engine, "host")
    attempt = host.begin(job.id)
    assert attempt is not None and host.add_events(attempt, 0, [{"message": "a"}])
    assert not host.is_cancelled(attempt)
    jobs.cancel(job.id, "user")
    host.finish(attempt, 0, "", ended=False)
    remove_old_jobs(engine, jobs, History(jobs=100_000, age=timedelta(days=9999)))
    sa.event.remove(engine, "before_cursor_execute", explain)
    assert len(found) > 25
    counts = "count(*)"  # of most of the table
    slow = [
        (s, plan) for s, plan in found if "Seq Scan on publisher_jobs" in plan and counts not in s
    ]
    assert not slow, slow
    used = "".join(plan for _, plan in found)
    for name in ("queued_once", "queued", "of_state", "of_repository", "of_project"):
        assert f"using publisher_jobs_{name} " in used, name
