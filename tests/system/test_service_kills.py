"""Hosts of the service and their database are killed at random: nothing is lost, or done twice."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from publisher.service.audit import Audit
from publisher.service.jobs.model import Job, JobFilter, JobState
from tests.command import succeed
from tests.cvmfs import Machine, make_machine
from tests.postgresql import PostgreSQL, postgresql
from tests.service import (
    SECONDS,
    AskedJobs,
    HostProcess,
    eventually,
    patiently,
    running_host,
    write_lists,
)

pytestmark = pytest.mark.system

KILL_SECONDS = float(os.environ.get("PUBLISHER_SERVICE_KILL_SECONDS", "6"))
"""How long hosts and databases are killed; by hand, 300 with 200 images."""

LISTS, IMAGES = (20, 10) if KILL_SECONDS >= 60 else (3, 3)
TOKEN = "submits"
GATEWAYS = ("one.test.org", "two.test.org")
_RUNNING = JobFilter(states=frozenset({JobState.RUNNING}))


@dataclass(slots=True)
class Submitter:
    """Queues an ingest of each list over HTTP, from a thread, until each request is answered."""

    url: str
    works: list[tuple[str, str]]
    pause: float
    jobs: dict[tuple[str, str], str] = field(default_factory=dict)
    requests: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        for work in self.works:
            until = time.monotonic() + SECONDS
            while work not in self.jobs and time.monotonic() < until and not self.ended.is_set():
                self._submit(work)
            self.ended.wait(self.pause)

    def _submit(self, work: tuple[str, str]) -> None:
        repository, wish_list = work
        body = {"kind": "ingest-list", "repository": repository, "list": wish_list}
        headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": "/".join(work)}
        self.requests += 1
        try:
            found = requests.post(f"{self.url}/api/v1/jobs", json=body, headers=headers, timeout=60)
        except requests.RequestException:  # the host was killed, perhaps after it had queued it
            self.ended.wait(0.2)
            return
        if found.status_code == 503:
            assert found.json()["hint"]
            self.ended.wait(0.2)
            return
        assert found.status_code in (200, 202), found.text
        self.jobs[work] = found.json()["id"]


def _machines(directory: Path) -> tuple[Machine, Machine]:
    """Two machines that publish to the same repositories, by a gateway."""
    first, second = (make_machine(directory / name) for name in ("first", "second"))
    (first.root / "srv").mkdir()
    (second.root / "srv").symlink_to(first.root / "srv")
    for machine in (first, second):
        for name in GATEWAYS:
            machine.make(name, "-u", "gw,/srv/cvmfs,http://gateway")
    for name in GATEWAYS:
        succeed("init", f"cvmfs:{name}", env=first.environment)
    return first, second


def _variables(machine: Machine) -> dict[str, str]:
    """Of the machine's environment, all but the state: each host has its own."""
    return {key: text for key, text in machine.environment.items() if key != "PUBLISHER_STATE"}


def _configuration(directory: Path, database: PostgreSQL) -> dict[str, object]:
    lists = write_lists(directory, lists=LISTS, images=IMAGES)
    sources = {name: {"source": str(path)} for name, path in lists.items()}
    return {
        "database": database.url,
        "limits": {"host-timeout": "3s"},
        "environment": ["CVMFS_STANDIN_ROOT", "PUBLISHER_CVMFS_CONFIGURATION"],
        "tokens": [
            {
                "name": "test",
                "sha256": hashlib.sha256(TOKEN.encode()).hexdigest(),
                "allows": ["read", "submit"],
            }
        ],
        "repositories": {
            "directory": {"url": f"dir:{directory}/images", "lists": sources},
            "one": {"url": f"cvmfs:{GATEWAYS[0]}", "lists": sources, "jobs": 2},
            "two": {"url": f"cvmfs:{GATEWAYS[1]}", "lists": sources, "jobs": 1},
        },
    }


@pytest.mark.timeout(600 + 4 * KILL_SECONDS)
def test_jobs_are_lost_by_no_death_of_a_host_or_of_the_database(tmp_path: Path) -> None:
    """200 images of 20 lists in a directory and in two CVMFS repositories, each published once."""
    seed = int(os.environ.get("PUBLISHER_SERVICE_KILL_SEED", random.randrange(10**6)))
    print(f"seed {seed}")
    chance = random.Random(seed)
    machines = _machines(tmp_path)
    with postgresql() as database, ExitStack() as stack:
        configuration = _configuration(tmp_path, database)
        hosts = [
            HostProcess(role, tmp_path / name, configuration, _variables(machine))
            for role, name, machine in zip(("serve", "worker"), "ab", machines, strict=True)
        ]
        for host in hosts:
            stack.enter_context(running_host(host))
        asked = AskedJobs(database.url)
        works = [(r, f"list{n}") for n in range(LISTS) for r in ("directory", "one", "two")]
        submitter = Submitter(
            f"http://127.0.0.1:{hosts[0].port}", works, 0.8 * KILL_SECONDS / len(works)
        )
        thread = threading.Thread(target=submitter.run)
        thread.start()
        stack.callback(thread.join)
        stack.callback(submitter.ended.set)
        kills = _kill(chance, hosts, database, asked)
        thread.join(SECONDS)
        assert set(submitter.jobs) == set(works)
        attempts = _check_jobs(asked, submitter)
        print(f"kills {dict(kills)}, attempts of jobs {dict(Counter(attempts))}")
        assert max(attempts) > 1
        assert [host.stop() for host in hosts] == [0, 0]
    environments = [
        machine.environment | {"PUBLISHER_STATE": str(host.directory / "state/wishes")}
        for host, machine in zip(hosts, machines, strict=True)
    ]
    _check_published(f"dir:{tmp_path}/images", environments[:1])
    for name in GATEWAYS:
        for variables in environments:
            # The next writer on each machine recovers what its last one left, and sees all.
            succeed("gc", "--repository", f"cvmfs:{name}", env=variables)
        _check_published(f"cvmfs:{name}", environments)


def _kill(
    chance: random.Random, hosts: list[HostProcess], database: PostgreSQL, asked: AskedJobs
) -> Counter[str]:
    """Kill the host of a running job, then the database, then any of them until the end."""
    until = time.monotonic() + KILL_SECONDS
    [running, *_] = eventually(lambda: asked.jobs.list(_RUNNING).jobs)
    victims: list[HostProcess | PostgreSQL] = [each for each in hosts if each.name == running.host]
    victims.append(database)
    kills: Counter[str] = Counter()
    while victims or time.monotonic() < until:
        anyone: list[HostProcess | PostgreSQL] = [*hosts, database]
        victim = victims.pop(0) if victims else chance.choice(anyone)
        if isinstance(victim, PostgreSQL):
            victim.kill()
            kills["database"] += 1
        else:
            everything = chance.random() < 0.5
            victim.kill(everything)
            kills[f"{victim.role}{' with its commands' if everything else ''}"] += 1
        time.sleep(chance.choice((0, 0, 4)))  # at times longer than the time-out of a host
        victim.start()
        time.sleep(chance.uniform(0.5, max(2.0, KILL_SECONDS / 30)))
    return kills


def _check_jobs(asked: AskedJobs, submitter: Submitter) -> list[int]:
    """Each job has succeeded, and there are no others; return how often each was begun."""
    ends: list[Job] = []
    for job_id in submitter.jobs.values():
        job = patiently(lambda job_id=job_id: asked.jobs.get(job_id))  # type: ignore[misc]
        ends.append(asked.end_of(job))
    for job in ends:
        assert job.state is JobState.SUCCEEDED, (job, asked.messages(job))
        assert "the command ends with 0" in asked.messages(job)
    everything = patiently(lambda: asked.jobs.list(limit=500)).jobs
    assert {job.id for job in everything} == set(submitter.jobs.values())
    works = {(job.request.repository, job.request.subject) for job in everything}
    assert len(works) == len(everything) == len(submitter.works)
    accepted = [entry for entry in Audit(asked.engine).list(limit=10_000) if entry.status == 202]
    assert {(entry.sender, entry.path) for entry in accepted} == {("test", "/api/v1/jobs")}
    assert len(accepted) <= len(everything)
    return [job.attempt for job in ends]


def _check_published(repository: str, machines: Sequence[Mapping[str, str]]) -> None:
    """Each image is published, and was published once. Each machine of CVMFS has a history."""
    where = ("--repository", repository)
    listed: Any = succeed("list", *where, "--output", "json", env=machines[-1]).json
    assert len(listed["images"]) == LISTS * IMAGES
    options = ("--limit", "100000", "--output", "json")
    published = []
    for variables in machines:
        history: Any = succeed("log", *where, *options, env=variables).json
        changes = [change for each in history["transactions"] for change in each["changes"]]
        published += [each["name"] for each in changes if each["what"] == "published"]
    assert sorted(published) == sorted(each["name"] for each in listed["images"])
    succeed("verify", "--deep", *where, env=machines[-1])
