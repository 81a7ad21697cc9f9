"""DBOS: takes jobs from the queue when their repository is free, and those of lost hosts again.

Each job is one workflow of one step, which records the job in the tables of `database.py` itself.
DBOS is only asked for what they cannot do: which host takes which job next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence

from dbos import DBOS, DBOSConfig, WorkflowSerializationFormat, _dbos

from publisher.service.jobs.database import driver_url
from publisher.service.jobs.store import APPLICATION, QUEUE, VERSION, WORKFLOW

_log = logging.getLogger(__name__)

_POLLING_SECONDS = 1.0
_QUIET = logging.WARNING
"""At the level info, DBOS writes an advertisement of a hosted console."""


class Engine:
    """Takes jobs from the queue in the database `url`, as the host `host`.

    `run` runs the job with that identifier to its end, in a thread; when it returns, the job is
    done with. At most `jobs` run at the same time.
    """

    def __init__(self, url: str, host: str, run: Callable[[str], None], jobs: int) -> None:
        self._url = driver_url(url).render_as_string(hide_password=False)
        self._host = host
        self._jobs = jobs
        self._launched = False
        self._missing: dict[str, float] = {}
        # Without a limit of attempts: a job that ran on many lost hosts runs once more. The name
        # stays registered when `launch` fails, and is tried again.
        workflow = DBOS.workflow(
            name=WORKFLOW,
            max_recovery_attempts=None,
            serialization_type=WorkflowSerializationFormat.PORTABLE,
        )
        workflow(_function(run))

    def launch(self) -> None:
        """Begin to take jobs; raise an error of the database, after which it can be tried again."""
        logging.getLogger("dbos").setLevel(_QUIET)
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self._url,
            "executor_id": self._host,
            "application_version": VERSION,
            "log_level": "WARNING",
            "use_listen_notify": False,
        }
        DBOS(config=config)
        try:
            DBOS.launch()
            self._register()
        except BaseException:
            DBOS.destroy()
            raise
        self._launched = True

    def _register(self) -> None:
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=self._jobs,
            partition_concurrency=1,  # a partition is a repository
            polling_interval_sec=_POLLING_SECONDS,
            on_conflict="always_update",
        )

    def allow_jobs(self, jobs: int) -> None:
        """Change how many jobs run at the same time; raise an error of the database."""
        self._jobs = jobs
        if self._launched:
            self._register()

    def recover(self, hosts: Sequence[str]) -> None:
        """Put the jobs that these hosts ran in the queue again."""
        if hosts:
            _log.warning("hosts are lost, their jobs run again: %s", ", ".join(hosts))
            DBOS._recover_pending_workflows(list(hosts))

    def recover_forgotten(self, running: Collection[str], seconds: float) -> None:
        """Put jobs in the queue again that DBOS took for this host, and that do not run here.

        That is so if the database was away when DBOS read a job that it had just taken. `running`
        are the jobs that run here, and `seconds` is how long another one may take to begin.
        """
        taken = DBOS.list_workflows(
            status="PENDING", executor_id=self._host, load_input=False, load_output=False
        )
        moment = time.monotonic()
        missing = {each.workflow_id for each in taken} - set(running)
        self._missing = {job: self._missing.get(job, moment) for job in missing}
        for job, since in self._missing.items():
            if moment - since > seconds:
                _log.warning("job %s did not begin, and is queued again", job)
                database = _dbos._get_dbos_instance()._sys_db
                database.reenqueue_for_recovery(job, [self._host], QUEUE)


def _function(run: Callable[[str], None]) -> Callable[[str], None]:
    """Return `run` as a function: DBOS sets attributes, which methods do not have."""

    def run_job(job_id: str) -> None:
        run(job_id)

    return run_job
